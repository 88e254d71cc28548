/** A zip file of files that are stored as they are (JPEGs do not get smaller). Format: PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16. */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Numbers, little-endian: [value, bytes] each. */
function record(...numbers) {
  return Uint8Array.from(numbers.flatMap(([value, bytes]) => Array.from({ length: bytes }, (_, at) => (value >>> (8 * at)) & 0xff)));
}

const UTF8 = 0x0800;
const FIRST_DAY = 0x21; // 1 January 1980, the earliest that a zip can say

/** @param {{name: string, bytes: Uint8Array<ArrayBuffer>}[]} files @returns {Blob} */
export function zipOf(files) {
  /** @type {{parts: Uint8Array<ArrayBuffer>[], directory: Uint8Array<ArrayBuffer>[]}} */
  const { parts, directory } = { parts: [], directory: [] };
  let offset = 0;
  for (const { name, bytes } of files) {
    const named = new TextEncoder().encode(name);
    const shared = [[20, 2], [UTF8, 2], [0, 2], [0, 2], [FIRST_DAY, 2], [crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4], [named.length, 2], [0, 2]];
    const head = record([0x04034b50, 4], ...shared);
    parts.push(head, named, bytes);
    directory.push(record([0x02014b50, 4], [20, 2], ...shared, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), named);
    offset += head.length + named.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
