// A picture as a grid of mean colours, and how two grids differ. Evaluated in whatever page a picture was taken of.
(() => {
  async function drawn(png) {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.fromBase64(png)], { type: "image/png" }), { colorSpaceConversion: "none" });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return { canvas, context, width: bitmap.width, height: bitmap.height, data: context.getImageData(0, 0, bitmap.width, bitmap.height).data };
  }
  async function base64(canvas) {
    return new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer()).toBase64();
  }
  // Red, green and blue of each cell, one cell after the other, row by row.
  function grid(picture, cell) {
    const { width, height, data } = picture;
    const columns = Math.ceil(width / cell), rows = Math.ceil(height / cell);
    const sums = new Float64Array(columns * rows * 3);
    for (let y = 0, at = 0; y < height; y++)
      for (let x = 0, place = Math.floor(y / cell) * columns * 3; x < width; place += 3) {
        let red = 0, green = 0, blue = 0;
        for (const end = Math.min(x + cell, width); x < end; x++, at += 4) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
        sums[place] += red;
        sums[place + 1] += green;
        sums[place + 2] += blue;
      }
    for (let row = 0, place = 0; row < rows; row++)
      for (let column = 0; column < columns; column++, place += 3) {
        const pixels = Math.min(cell, width - column * cell) * Math.min(cell, height - row * cell);
        for (let colour = 0; colour < 3; colour++) sums[place + colour] /= pixels;
      }
    return { columns, rows, sums };
  }
  function asPicture({ columns, rows, sums }, step) {
    const canvas = new OffscreenCanvas(columns, rows), context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let place = 0; place < columns * rows; place++) {
      for (let colour = 0; colour < 3; colour++)
        image.data[place * 4 + colour] = Math.min(255, Math.round(sums[place * 3 + colour] / step) * step);
      image.data[place * 4 + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
  function far(one, other, at, beside) {
    let most = 0;
    for (let colour = 0; colour < 3; colour++)
      most = Math.max(most, Math.abs(one.sums[at * 3 + colour] - other.sums[beside * 3 + colour]));
    return most;
  }
  // What is at a point of the page, in words: the nearest thing with a name around it.
  function named(x, y) {
    let best = "", least = Infinity;
    for (const element of document.querySelectorAll("main [id], main section, main table, main h2, header, nav")) {
      const box = element.getBoundingClientRect(), area = box.width * box.height;
      const left = box.left + scrollX, top = box.top + scrollY;
      if (!area || area >= least || x < left || y < top || x > left + box.width || y > top + box.height) continue;
      const label = document.getElementById(element.getAttribute("aria-labelledby"))?.innerText;
      const name = element.id ? "#" + element.id : label || element.getAttribute("aria-label") || element.tagName.toLowerCase();
      [best, least] = [name.trim().slice(0, 60), area];
    }
    return best;
  }

  window.Comparing = {
    // The grid of a picture, as a picture: what is kept.
    async kept(png, how) {
      return base64(asPicture(grid(await drawn(png), how.cell), how.step));
    },
    // {taller, wider} in cells, {share} of cells that differ, and {thick, at}: how full of such cells the worst window is, and where.
    async compare(png, kept, how) {
      const actual = grid(await drawn(png), how.cell), stored = await drawn(kept);
      const reference = grid(stored, 1);
      const found = { taller: actual.rows - reference.rows, wider: actual.columns - reference.columns, cells: [] };
      const columns = Math.min(actual.columns, reference.columns), rows = Math.min(actual.rows, reference.rows);
      const upTo = new Uint32Array((columns + 1) * (rows + 1));
      let differing = 0;
      found.most = 0;
      for (let y = 0; y < rows; y++)
        for (let x = 0, line = 0; x < columns; x++) {
          const apart = far(actual, reference, y * actual.columns + x, y * reference.columns + x);
          found.most = Math.max(found.most, apart);
          if (apart > how.tolerance) {
            differing++;
            line++;
            found.cells.push(y * columns + x);
          }
          upTo[(y + 1) * (columns + 1) + x + 1] = upTo[y * (columns + 1) + x + 1] + line;
        }
      found.share = differing / (columns * rows);
      found.thick = 0;
      const size = how.window;
      for (let y = 0; y + size <= rows; y++)
        for (let x = 0; x + size <= columns; x++) {
          const at = (down, right) => upTo[(y + down) * (columns + 1) + x + right];
          const within = at(size, size) - at(0, size) - at(size, 0) + at(0, 0);
          if (within > found.thick) [found.thick, found.at] = [within, [x * how.cell, y * how.cell]];
        }
      found.columns = columns;
      if (found.at) found.name = named(found.at[0] + (size * how.cell) / 2, found.at[1] + (size * how.cell) / 2);
      return found;
    },
    // To look at: what was kept as large as the page, and the page with everything that differs framed in red.
    async pictures(png, kept, found, how) {
      const actual = await drawn(png), stored = await drawn(kept);
      const large = new OffscreenCanvas(stored.width * how.cell, stored.height * how.cell), context = large.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(stored.canvas, 0, 0, large.width, large.height);
      const shown = actual.context;
      shown.fillStyle = "rgb(255 255 255 / .6)";
      shown.fillRect(0, 0, actual.width, actual.height);
      shown.fillStyle = "rgb(255 0 0 / .45)";
      for (const place of found.cells)
        shown.fillRect((place % found.columns) * how.cell, Math.floor(place / found.columns) * how.cell, how.cell, how.cell);
      return { reference: await base64(large), difference: await base64(actual.canvas) };
    },
  };
})();
