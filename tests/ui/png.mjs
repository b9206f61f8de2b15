// How does a picture of a page become small enough for the repository? It has few colours: 255 of them and a palette do.

import { deflateSync, inflateSync } from "node:zlib";

/** The same picture with a palette. Takes what browsers write: eight bits of RGB or RGBA, not interlaced. */
export function small(png) {
  const { width, height, channels, bytes } = pixels(png);
  const counts = new Map();
  const key = (at) => ((bytes[at] >> 2) << 12) | ((bytes[at + 1] >> 2) << 6) | (bytes[at + 2] >> 2);
  for (let at = 0; at < bytes.length; at += channels) counts.set(key(at), (counts.get(key(at)) ?? 0) + 1);
  const colours = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 255).map(([colour]) => colour);
  const nearest = new Map(colours.map((colour, nth) => [colour, nth]));
  const parts = (colour) => [(colour >> 12) & 63, (colour >> 6) & 63, colour & 63];
  const find = (colour) => {
    if (!nearest.has(colour)) {
      const [r, g, b] = parts(colour);
      const distance = (other) => { const [x, y, z] = parts(other); return (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2; };
      let best = 0;
      for (let nth = 1; nth < colours.length; nth += 1) if (distance(colours[nth]) < distance(colours[best])) best = nth;
      nearest.set(colour, best);
    }
    return nearest.get(colour);
  };
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += channels) rows[y * (width + 1) + 1 + x] = find(key(at));
  }
  const palette = Buffer.from(colours.flatMap((colour) => parts(colour).map((part) => (part << 2) | (part >> 4))));
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 3, 0, 0, 0], 8);
  return Buffer.concat([SIGNATURE, chunk("IHDR", head), chunk("PLTE", palette), chunk("IDAT", deflateSync(rows, { level: 9 })), chunk("IEND", Buffer.alloc(0))]);
}

function pixels(png) {
  const width = png.readUInt32BE(16);
  const height = png.readUInt32BE(20);
  const channels = { 2: 3, 6: 4 }[png[25]];
  const data = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    if (png.toString("latin1", at + 4, at + 8) === "IDAT") data.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  const lines = inflateSync(Buffer.concat(data));
  const stride = width * channels;
  const bytes = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = lines[y * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const at = y * stride + x;
      const left = x >= channels ? bytes[at - channels] : 0;
      const up = y > 0 ? bytes[at - stride] : 0;
      const corner = x >= channels && y > 0 ? bytes[at - stride - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      bytes[at] = lines[y * (stride + 1) + 1 + x] + guess;
    }
  }
  return { width, height, channels, bytes };
}

/** PNG, third edition, §9.4. */
function paeth(a, b, c) {
  const [pa, pb, pc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

function chunk(type, data) {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, "latin1");
  data.copy(out, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

/** PNG, third edition, annex D. */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const CRC = Array.from({ length: 256 }, (_, nth) => {
  let crc = nth;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc >>> 0;
});
const SIGNATURE = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
