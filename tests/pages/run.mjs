// Runs the scenarios one after the other and tells how each went.

import { closeBrowser, stopListening, tell } from "./lib.mjs";
import * as modules from "./modules.mjs";
import * as customer from "./customer.mjs";
import * as restaurant from "./restaurant.mjs";
import * as operations from "./operations.mjs";

const only = process.argv[2];
for (const [part, scenarios] of Object.entries({ modules, customer, restaurant, operations })) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    const test = `${part}::${name}`;
    if (only && !test.includes(only)) continue;
    const began = performance.now();
    try {
      const note = await scenario();
      tell({ test, ok: true, ms: Math.round(performance.now() - began), note });
    } catch (error) {
      tell({ test, ok: false, ms: Math.round(performance.now() - began), note: error.stack });
    }
  }
}
await closeBrowser();
tell({ done: true });
stopListening();
