// Says what is wrong with an AsyncAPI document; exit code 1 if anything is.
//   asyncapi.mjs FILE        the parser is looked for in .keylane/npm
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../.keylane/npm/", import.meta.url));
const { Parser, DiagnosticSeverity } = require("@asyncapi/parser");

const file = process.argv[2];
const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
const troubles = diagnostics.filter(({ severity, code }) =>
  // A newer version of the specification is no fault; what is only informative is none either.
  severity <= DiagnosticSeverity.Warning && code !== "asyncapi-latest-version");
for (const { path, message, range } of troubles) {
  console.error(`${file}:${range.start.line + 1}: ${path.join(".")}: ${message}`);
}
process.exitCode = document === undefined || troubles.length > 0 ? 1 : 0;
