// Puts "Authorization: Bearer $BEARER" on whatever the conformance suite sends, for it has no option for a token:
//
//     BEARER=… node --import ./add-bearer.mjs …/conformance/dist/index.js server --url …
//
// A request that has an Authorization of its own keeps it. The suite sends in two ways: through undici (fetch and the npm
// package share one dispatcher, which stands on the global object) and through node:http.
import http from 'node:http';
import { createRequire, syncBuiltinESMExports } from 'node:module';

const authorization = `Bearer ${process.env.BEARER}`;
const isAuthorization = (name) => String(name).toLowerCase() === 'authorization';

// Headers come as an object, as a flat list of names and values, or as pairs.
function authorized(headers) {
  if (headers === undefined || headers === null) return { authorization };
  if (Array.isArray(headers) && !Array.isArray(headers[0])) {
    return headers.some((item, index) => index % 2 === 0 && isAuthorization(item)) ? headers : [...headers, 'authorization', authorization];
  }
  const all = typeof headers[Symbol.iterator] === 'function' ? Object.fromEntries(headers) : headers;
  return Object.keys(all).some(isAuthorization) ? headers : { ...all, authorization };
}

if (process.env.BEARER && process.argv[1]) {
  const undici = createRequire(process.argv[1])('undici');
  undici.setGlobalDispatcher(
    undici.getGlobalDispatcher().compose((send) => (request, handler) => send({ ...request, headers: authorized(request.headers) }, handler)),
  );

  const { request } = http;
  http.request = (...given) => {
    const at = given.findIndex((item) => item !== null && typeof item === 'object' && !(item instanceof URL));
    if (at >= 0) given[at] = { ...given[at], headers: authorized(given[at].headers) };
    return request(...given);
  };
  syncBuiltinESMExports();
}
