'use strict';
// Heat at any time, exactly, by a slider over the logarithm of time.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const brief = (value) => +value.toPrecision(3);
  // Orthonormal DCT-II: n rows, one per frequency.
  const cosines = (n) => Float64Array.from({ length: n * n }, (_, i) => {
    const row = Math.floor(i / n);
    return Math.sqrt((row ? 2 : 1) / n) * Math.cos(Math.PI * row * (i % n + 0.5) / n);
  });

  const start = (script) => {
    const data = JSON.parse(script.textContent);
    if (data.kind !== 'diffusion') return;
    const { height, width, coldest, hottest, times: [low, high] } = data;
    const [down, across] = [cosines(height), cosines(width)];
    const begin = floats(data.coefficients);
    const mean = begin[0] / Math.sqrt(height * width);
    const colours = bytes(data.colours);

    const fieldAt = (k, t) => {
      const half = new Float64Array(height * width);
      const field = new Float64Array(height * width);
      for (let i = 0; i < half.length; i++) {
        const [n, m] = [Math.floor(i / width), i % width];
        const w2 = (Math.PI * n / height) ** 2 + (Math.PI * m / width) ** 2;
        const left = begin[i] * Math.exp(-(k[i] ?? k) * t * w2);
        for (let x = 0; x < width; x++) half[n * width + x] += left * across[m * width + x];
      }
      for (let i = 0; i < field.length; i++) {
        const [y, x] = [Math.floor(i / width), i % width];
        for (let n = 0; n < height; n++) field[i] += down[n * height + y] * half[n * width + x];
      }
      return field;
    };

    const views = data.k.map((k, which) => {
      const canvas = make('canvas', { width, height, role: 'img', style: 'width:100%;image-rendering:pixelated' });
      const text = make('small');
      const values = k.at ? floats(k) : k;
      return [make('div', { style: 'flex:1' }, canvas, text), (moment) => {
        const t = moment / data.rates[which];
        const field = canvas.field = fieldAt(values, t);
        const picture = new ImageData(width, height);
        field.forEach((value, j) => {
          const place = Math.log(Math.max(value / mean / coldest, 1)) / Math.log(hottest / coldest);
          const i = 3 * Math.round(Math.min(place, 1) * (colours.length / 3 - 1));
          picture.data.set([...colours.slice(i, i + 3), 255], 4 * j);
        });
        canvas.getContext('2d').putImageData(picture, 0, 0);
        canvas.ariaLabel = text.textContent = `${data.labels[which]}, t ${brief(t)}`;
      }];
    });
    const slider = make('input', { type: 'range', max: 200, value: 100, style: 'width:100%' });
    const output = make('output');
    slider.oninput = () => {
      const moment = low * (high / low) ** (slider.value / 200);
      output.value = slider.ariaValueText = `${data.unit} ${brief(moment)}`;
      views.forEach(([, paint]) => paint(moment));
    };
    const grid = make('div', { style: 'display:flex;gap:.6rem' }, ...views.map(([view]) => view));
    script.before(make('label', {}, 'Any time', slider), output, grid);
    slider.oninput();
  };
  document.querySelectorAll('script[data-for]').forEach(start);
})();
