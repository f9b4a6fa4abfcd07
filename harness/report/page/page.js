"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  for (const form of all(".filter")) {
    const sheet = form.closest(".sheet");
    const [stage, outcome] = all("select", form);
    const text = form.querySelector("input");
    const count = form.querySelector("output");
    const cases = all(".case", sheet);
    const apply = () => {
      let shown = 0;
      for (const one of cases) {
        const results = one.dataset.results.split(" ").map((pair) => pair.split(":"));
        const fits = results.some(([at, is]) =>
          (!stage.value || at === stage.value) &&
          (!outcome.value || is === outcome.value || (outcome.value === "bad" && (is === "diverged" || is === "failed"))));
        one.hidden = !fits || !one.dataset.name.includes(text.value.trim().toLowerCase());
        shown += one.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${cases.length} shown`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    apply();
  }
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.matches("details")) {
      target.hidden = false;
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
