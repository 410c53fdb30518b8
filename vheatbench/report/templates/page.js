'use strict';
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const saver = (text, what, download, address) => make('button', {
    ariaLabel: `Save ${what} as ${text}`,
    onclick: () => make('a', { href: address(), download }).click(),
  }, text);
  const seen = (element) => element.checkVisibility();
  const file = (text, type) => URL.createObjectURL(new Blob([text], { type }));
  const field = (name, labels) => make('fieldset', {}, make('legend', {}, name), ...labels);

  // A file of its own has no variables of the page.
  const standalone = (svg) => {
    const page = getComputedStyle(document.documentElement);
    const copy = svg.cloneNode(true);
    all('.targets, .off', copy).forEach((part) => part.remove());
    copy.setAttribute('style', 'background: var(--panel); font-family: sans-serif');
    return new XMLSerializer().serializeToString(copy)
      .replace(/var\((--[\w-]+)\)/g, (_, name) => page.getPropertyValue(name));
  };

  // Three pixels for each of a screen's.
  const raster = (svg, name) => {
    const { width, height } = svg.viewBox.baseVal;
    const picture = new Image();
    picture.onload = () => {
      const canvas = make('canvas', { width: 3 * width, height: 3 * height });
      canvas.getContext('2d').drawImage(picture, 0, 0, canvas.width, canvas.height);
      make('a', { href: canvas.toDataURL(), download: `${name}.png` }).click();
    };
    picture.src = `data:image/svg+xml,${encodeURIComponent(standalone(svg))}`;
  };

  const hover = (plot) => {
    const tip = make('div', { className: 'tip', role: 'status', hidden: true });
    plot.append(tip);
    plot.role = 'application';
    plot.ariaLabel += ', points: arrow keys';
    all('title', plot).forEach((text) => {
      text.parentNode.dataset.text = text.textContent;
      text.remove();
    });
    const points = () => all('circle', plot).filter(seen);
    let current;
    const show = (target) => {
      if (target === current) return;
      current?.classList.remove('on');
      current = target;
      tip.hidden = !target;
      if (!target) return;
      target.classList.add('on');
      tip.textContent = target.dataset.text;
      const frame = plot.getBoundingClientRect();
      const { x, y } = target.getBoundingClientRect();
      const left = x - frame.x;
      // beside the point, on the side with more room
      const translate = left > frame.width / 2 ? '-100%' : '14px';
      Object.assign(tip.style, { translate, left: `${left}px`, top: `${y - frame.y}px` });
    };
    plot.onpointermove = (event) => {
      const away = (one) => {
        const { x, y, width } = one.getBoundingClientRect();
        return Math.hypot(x + width / 2 - event.clientX, y + width / 2 - event.clientY);
      };
      show(points().filter((one) => away(one) < 14).sort((a, b) => away(a) - away(b))[0]);
    };
    plot.onpointerleave = plot.onblur = () => show();
    plot.onkeydown = (event) => {
      const shown = points();
      const row = shown.filter((one) => one.dataset.s === current?.dataset.s).length || 1;
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[event.key];
      if (event.key === 'Escape') show();
      if (!step) return;
      event.preventDefault();
      show(shown.at((shown.indexOf(current) + step) % shown.length));
    };
  };

  const charts = {};
  all('figure').forEach((figure) => {
    const plot = figure.querySelector('.plot');
    const title = plot.ariaLabel;
    const views = all('[data-view]', plot).map((one) => one.dataset);
    const parts = all('[data-s]', plot);
    const names = [...new Set(parts.map((part) => part.dataset.s))];
    const tools = make('div', { className: 'tools' });
    const draw = () => {
      const on = boxes.filter((box) => box.checked).map((box) => box.value);
      const scale = radios.find((radio) => radio.checked)?.value ?? '';
      figure.dataset.scale = scale;
      parts.forEach((part) => part.classList.toggle('off', !on.includes(part.dataset.s)));
      return { on, scale };
    };
    const link = () => {
      const { on, scale } = draw();
      const state = new URLSearchParams([['chart', figure.id], ['scale', scale], ...on.map((name) => ['series', name])]);
      history.replaceState(null, '', `#${state}`);
    };
    const input = (type, value, checked) => make('input', { type, value, checked, name: figure.id + type, onchange: link });
    const radios = views.map(({ view }, i) => input('radio', view, !i));
    const boxes = names.map((name) => input('checkbox', name, true));
    charts[figure.id] = (state) => {
      const on = state.getAll('series').filter((name) => names.includes(name));
      boxes.forEach((box) => { box.checked = !on[0] || on.includes(box.value); });
      const radio = radios.find((one) => one.value === state.get('scale')) ?? radios[0];
      if (radio) radio.checked = true;
      draw();
    };
    if (views[1]) tools.append(field('Axes', radios.map((radio, i) => make('label', {}, radio, views[i].label))));
    if (names[1]) tools.append(field('Series', boxes.map((box) => make('label', {}, box, box.value))));
    const svg = () => all('svg', plot).find(seen);
    if (plot.querySelector('svg')) {
      tools.append(
        saver('SVG', title, `${figure.id}.svg`, () => file(standalone(svg()), 'image/svg+xml')),
        make('button', { ariaLabel: `Save ${title} as PNG`, onclick: () => raster(svg(), figure.id) }, 'PNG'),
      );
    }
    const images = all('img', plot);
    const savePictures = () => images.forEach(({ src }, i) => make('a', { href: src, download: `${figure.id}-${i}.png` }).click());
    if (images[0]) tools.append(make('button', { ariaLabel: `Save ${title} as PNG`, onclick: savePictures }, 'PNG'));
    plot.after(tools);
    if (plot.querySelector('circle title')) hover(plot);
    draw();
  });

  const first = (cell) => cell.firstChild?.textContent.replace(/[≈+\s]/g, '').replace('−', '-') || '—';
  const sort = (body, column, sign) => {
    const rows = all('tr', body).map((row) => [first(row.cells[column]), row]);
    rows.sort(([a], [b]) => (a === '—') - (b === '—') || sign * (parseFloat(a) - parseFloat(b) || a.localeCompare(b, 'en', { numeric: true })));
    body.append(...rows.map(([, row]) => row));
  };
  const quoted = (cell) => {
    const text = [...cell.childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(' ');
    // no formula for a spreadsheet to run
    return `"${text.replace(/^(?=[=@]|[+-](?![\d.]))/, "'").replaceAll('"', '""')}"`;
  };
  const filter = (table, tools) => {
    const rows = all('tbody tr', table).map((row) => {
      const [name, status] = row.cells;
      return [row, (name.firstChild.textContent + status.textContent).toLowerCase(), first(status)];
    });
    const words = make('input', { type: 'search' });
    const found = new Set(['any', ...rows.map((row) => row[2])]);
    const status = make('select', {}, ...[...found].map((one) => make('option', {}, one)));
    const count = make('output');
    words.oninput = status.oninput = () => {
      const wanted = words.value.toLowerCase().split(' ');
      rows.forEach(([row, text, own]) => {
        row.hidden = !wanted.every((word) => text.includes(word)) || !['any', own].includes(status.value);
      });
      count.value = `${rows.filter(([row]) => !row.hidden).length} of ${rows.length}`;
    };
    tools.prepend(make('label', {}, 'Filter ', words), make('label', {}, 'Status ', status), count);
  };
  all('.scroll > table').forEach((table, i) => {
    const csv = () => [...table.rows].map((row) => [...row.cells].map(quoted).join()).join('\r\n');
    const tools = make('div', { className: 'tools' }, saver('CSV', table.caption.textContent, `table-${i + 1}.csv`, () => file(csv(), 'text/csv')));
    table.parentNode.before(tools);
    const heads = all('thead th', table);
    heads.forEach((head, column) => {
      const onclick = () => {
        const up = head.ariaSort !== 'ascending';
        heads.forEach((one) => { one.ariaSort = null; });
        head.ariaSort = up ? 'ascending' : 'descending';
        sort(table.tBodies[0], column, up ? 1 : -1);
      };
      head.replaceChildren(make('button', { onclick }, head.textContent));
    });
    if (table.className === 'records') filter(table, tools);
  });

  const follow = () => {
    const hash = location.hash.slice(1);
    const state = new URLSearchParams(hash);
    const id = state.get('chart') ?? hash;
    const target = document.getElementById(id);
    for (let part = target; part; part = part.parentElement) part.open = true;
    charts[id]?.(state);
    target?.scrollIntoView();
  };
  addEventListener('hashchange', follow);
  follow();
})();
