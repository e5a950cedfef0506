"use strict";
// What viewer.py packs: a length, a JSON, and the arrays of which it holds the places.
const unpacked = async (id) => {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};
const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, f4: Float32Array };
const readPacked = async (id) => {
  const buffer = await unpacked(id);
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  const start = Math.ceil((4 + length) / 8) * 8;
  return JSON.parse(text, (key, value) =>
    value && value.array ? new TYPES[value.array](buffer, start + value.at, value.n) : value);
};
