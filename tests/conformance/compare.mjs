// Was any scenario worse through the gateway than direct?
//
//     node compare.mjs RESULTS REQUIREMENTS [LEG …]
//
// RESULTS holds direct/LEG and gateway/LEG, each what `conformance server --output-dir` wrote: a folder a scenario with its
// checks.json. REQUIREMENTS is the suite's folder of frozen requirements: what it does not score is counted apart.
// Exit code: 0 no worse; 1 worse, each such scenario named; 2 nothing to compare.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [results, requirements, ...legs] = process.argv.slice(2);

function read(side, leg) {
  const scenarios = new Map();
  const folder = join(results, side, leg);
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const scenario = /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(name)?.[1];
    const file = join(folder, name, 'checks.json');
    if (!scenario || !existsSync(file)) continue;
    const checks = JSON.parse(readFileSync(file, 'utf8'));
    const having = (status) => checks.filter((check) => check.status === status).map((check) => check.id);
    scenarios.set(scenario, { good: having('SUCCESS').length, bad: having('FAILURE'), doubtful: having('WARNING') });
  }
  return scenarios;
}

function notScored(leg) {
  const file = join(requirements, `${leg}.yaml`);
  if (!existsSync(file)) return new Set();
  const [, apart = ''] = readFileSync(file, 'utf8').split(/^not_scored:/m);
  return new Set([...apart.matchAll(/scenario: (\S+)\s+leg: server/g)].map(([, scenario]) => scenario));
}

const sum = (scenarios, count) => [...scenarios.values()].reduce((total, scenario) => total + count(scenario), 0);

function line(scenarios) {
  const held = sum(scenarios, (scenario) => (scenario.bad.length ? 0 : 1));
  const doubtful = sum(scenarios, (scenario) => scenario.doubtful.length);
  const checks = `${sum(scenarios, (scenario) => scenario.good)} checks`;
  return `${held}/${scenarios.size}, ${checks}${doubtful ? `, ${doubtful} warnings` : ''}`;
}

const rows = [['leg', 'direct', 'through the gateway']];
const worse = [];
const failing = [];
let seen = 0;
for (const leg of legs) {
  const [direct, gateway, apart] = [read('direct', leg), read('gateway', leg), notScored(leg)];
  for (const [title, belongs] of [[leg, (name) => !apart.has(name)], [`${leg}, not scored`, (name) => apart.has(name)]]) {
    const pick = (scenarios) => new Map([...scenarios].filter(([name]) => belongs(name)));
    if (pick(direct).size || pick(gateway).size) rows.push([title, line(pick(direct)), line(pick(gateway))]);
  }
  seen += direct.size;
  for (const [name, before] of direct) {
    const after = gateway.get(name);
    if (before.bad.length && !apart.has(name)) failing.push(`${leg} ${name}: ${before.bad.join(', ')}`);
    if (!after) {
      worse.push(`${leg} ${name}: did not run`);
    } else if (after.good < before.good || after.bad.length > before.bad.length) {
      const broken = [...after.bad, ...after.doubtful].filter((id) => !before.bad.includes(id) && !before.doubtful.includes(id));
      worse.push(`${leg} ${name}: ${before.good} checks held direct, ${after.good} through the gateway; ${broken.join(', ')}`);
    }
  }
}

const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column].length)));
for (const row of rows) console.log(row.map((cell, column) => cell.padEnd(widths[column])).join('   ').trimEnd());
for (const scenario of failing) console.log(`FAILS DIRECT  ${scenario}`);
for (const scenario of worse) console.log(`WORSE  ${scenario}`);
if (!seen) {
  console.log('Nothing was compared: no scenario ran direct.');
  process.exit(2);
}
console.log(worse.length ? `${worse.length} scenarios are worse through the gateway.` : `No scenario is worse through the gateway (${seen} compared).`);
process.exit(worse.length ? 1 : 0);
