// How does a screenshot become a small file? With a palette of 256 colours, as pages have hardly more.
// Given and returned in base64; runs in a page, which can read a PNG and deflate by itself.
async (base64) => {
  const MOST = 256;
  const NEAR = 10; // such a difference in each channel nobody sees
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);

  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const channels = (color) => [color & 255, (color >> 8) & 255, (color >> 16) & 255];
  const apart = (a, b) => Math.max(...channels(a).map((value, i) => Math.abs(value - channels(b)[i])));
  const byCount = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const palette = [];
  for (const color of byCount) {
    if (palette.length === MOST) break;
    if (counts.size <= MOST || palette.every((kept) => apart(kept, color) > NEAR)) palette.push(color);
  }
  const nearest = new Map(palette.map((color, index) => [color, index]));
  const place = (color) => {
    if (!nearest.has(color)) {
      let best = 0;
      for (let i = 1; i < palette.length; i++) if (apart(palette[i], color) < apart(palette[best], color)) best = i;
      nearest.set(color, best);
    }
    return nearest.get(color);
  };
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter: none
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) rows[y * (width + 1) + x + 1] = place(pixels[y * width + x]);
  }

  const crcs = Uint32Array.from({ length: 256 }, (_, n) => {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
    return c;
  });
  const crc = (data) => ~data.reduce((c, byte) => crcs[(c ^ byte) & 255] ^ (c >>> 8), -1) >>> 0;
  const number = (value) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  const chunk = (name, data) => {
    const named = new Uint8Array([...new TextEncoder().encode(name), ...data]);
    return new Uint8Array([...number(data.length), ...named, ...number(crc(named))]);
  };
  const deflated = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const parts = [
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    chunk("IHDR", [...number(width), ...number(height), 8, 3, 0, 0, 0]),
    chunk("PLTE", palette.flatMap(channels)),
    chunk("IDAT", new Uint8Array(await deflated.arrayBuffer())),
    chunk("IEND", []),
  ];
  let text = "";
  for (const part of parts) for (const byte of part) text += String.fromCharCode(byte);
  return btoa(text);
}
