// Renders templates for `_node.py`: one request a line on standard input, one answer a line on standard output.
"use strict";

const readline = require("node:readline");
const vm = require("node:vm");

const { Environment, Template } = require(process.argv[2]);

// How many compiled templates are kept.
const KEPT = 64;
const templates = new Map();

// The package asks the real clock; here it is told the time of the request.
let time = 0;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 ? [time] : given));
  }
};

// What a template throws on purpose is an Error like any other: the package's own function is watched.
const refusals = new WeakSet();
const set = Environment.prototype.set;
Environment.prototype.set = function (name, value) {
  if (name !== "raise_exception" || typeof value !== "function") return set.call(this, name, value);
  return set.call(this, name, (...given) => {
    try {
      return value(...given);
    } catch (error) {
      refusals.add(error);
      throw error;
    }
  });
};

// V8 ends what runs under a script of this kind when its time is over, also the code of the package.
const script = new vm.Script("work()");
const sandbox = vm.createContext({ work: undefined });

function limited(work, milliseconds) {
  sandbox.work = work;
  return script.runInContext(sandbox, { timeout: milliseconds });
}

function kindOf(error, compiling) {
  if (refusals.has(error)) return "refused";
  if (error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT" || error instanceof RangeError) return "limit";
  if (compiling) return "syntax";
  if (/\bUndefinedValue\b|\bundefined values\b/.test(error.message)) return "undefined";
  return "error";
}

function answer({ number, source, items, time: asked, milliseconds }) {
  const compiling = source !== undefined;
  if (!compiling && !templates.has(number)) return {};
  time = asked ?? 0;
  try {
    if (!compiling) return { text: limited(() => templates.get(number).render(items), milliseconds) };
    templates.set(number, limited(() => new Template(source), milliseconds));
    if (templates.size > KEPT) templates.delete(templates.keys().next().value);
    return {};
  } catch (error) {
    const late = error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
    const message = late ? `no answer in ${milliseconds / 1000} s` : String(error.message);
    return { kind: kindOf(error, compiling), message, name: late ? "TimedOut" : String(error.name) };
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + "\n");
});
