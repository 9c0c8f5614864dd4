'use strict';
// Changes the directory that the page lists, by the methods of WebDAV. Names are put into the page as
// text only.
(() => {
  // The address without user and password, which fetch() refuses.
  const here = location.origin + location.pathname.replace(/\/+/g, '/');
  const place = document.getElementById('change');
  const busy = new Set();
  // From this size on it is asked first whether a file is welcome: an answer that comes while the
  // browser still sends may be lost to it.
  const LARGE = 60000;

  const make = (name, parent, text, values) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    Object.assign(element, values);
    if (parent) parent.append(element);
    return element;
  };
  const button = (parent, text, act, label) => {
    const made = make('button', parent, text, {type: 'button', onclick: act});
    if (label) made.setAttribute('aria-label', label);
    return made;
  };
  // Where a row leads, without the order in which that is listed.
  const pathOf = link => link.pathname.replace(/\/+/g, '/').replace(/\/$/, '');
  const encoded = path => path.split('/').map(encodeURIComponent).join('/');
  const call = (method, url, headers) =>
    fetch(new URL(url, here), {method, headers, cache: 'no-store', credentials: 'same-origin'})
      .then(answer => answer.status, () => 0);

  const WHY = {
    0: 'The connection was lost.', 400: 'This name cannot be used.', 401: 'A password is needed.',
    403: 'This is not allowed.', 404: 'It is not there any more.',
    405: 'Something of this name exists already.', 409: 'The folder is not there any more.',
    412: 'Something of this name exists already.', 413: 'This is too large.',
    414: 'The name is too long.', 423: 'Somebody has locked this.',
    207: 'Not all of it could be changed.', 429: 'Too many passwords were tried.',
    503: 'The server is busy. Try again.', 507: 'There is no room on the disk.',
  };
  const why = status => WHY[status] || 'This failed (' + status + ').';
  const isGood = status => status >= 200 && status < 300 && status !== 207;
  const nameProblem = name => {
    if (!name || name === '.' || name === '..' || /[\/\0-\x1f\x7f]/.test(name)) return why(400);
    return new TextEncoder().encode(name).length > 255 ? why(414) : '';
  };

  // Asks something. Gives the text of the button, or null; with a field, what stands in it.
  const ask = (text, buttons, field, option) => new Promise(resolve => {
    const dialog = make('dialog', document.body);
    const form = make('form', dialog, '', {method: 'dialog'});
    const label = make(field === undefined ? 'p' : 'label', form, text);
    const input = field === undefined ? null :
      make('input', label, '', {value: field, autocomplete: 'off', spellcheck: false});
    const problem = make('p', form, '', {className: 'bad'});
    problem.setAttribute('role', 'alert');
    const box = option && make('input', null, '', {type: 'checkbox'});
    if (box) {
      const label = make('label', form, '', {className: 'option'});
      label.append(box, ' ' + option);
    }
    const row = make('p', form, '', {className: 'buttons'});
    const end = value => { dialog.close(); dialog.remove(); resolve(value); };
    button(row, 'Cancel', () => end(null));
    for (const name of buttons) {
      const isLast = name === buttons[buttons.length - 1];
      const made = make('button', row, name, {type: isLast ? 'submit' : 'button'});
      made.onclick = event => {
        event.preventDefault();
        if (input && (problem.textContent = nameProblem(input.value))) return;
        end(input ? input.value : {choice: name, always: !!(box && box.checked)});
      };
    }
    dialog.oncancel = event => { event.preventDefault(); end(null); };
    dialog.showModal();
    if (input) {
      input.focus();
      const dot = field.lastIndexOf('.');
      input.setSelectionRange(0, dot > 0 ? dot : field.length);
    }
  });
  const tell = text => { note.textContent = text; };

  // The tools take the place of the plain forms.
  for (const form of [...place.querySelectorAll('form')]) form.remove();
  const zone = make('div', place, '', {className: 'zone'});
  const tools = make('p', zone, '', {className: 'buttons'});
  const files = make('input', zone, '', {type: 'file', multiple: true, hidden: true});
  const folder = make('input', zone, '', {type: 'file', webkitdirectory: true, hidden: true});
  button(tools, 'Upload files', () => files.click());
  if ('webkitdirectory' in folder) button(tools, 'Upload a folder', () => folder.click());
  button(tools, 'New folder', newFolder);
  make('p', zone, 'Or drop files and folders here.', {className: 'hint'});
  const note = make('p', place, '', {className: 'note'});
  note.setAttribute('role', 'status');
  const list = make('ul', place, '', {className: 'uploads'});
  for (const input of [files, folder]) {
    input.onchange = () => {
      enqueue([...input.files].map(file => ({path: file.webkitRelativePath || file.name, file})));
      input.value = '';
    };
  }

  async function newFolder() {
    const name = await ask('Name of the new folder', ['Create'], '');
    if (name === null) return;
    const status = await call('MKCOL', encoded(name));
    tell(isGood(status) ? '' : name + ': ' + why(status));
    await refresh();
  }

  async function rename(link, name) {
    const next = await ask('New name of ' + name, ['Rename'], name);
    if (next === null || next === name) return;
    const from = pathOf(link);
    const Destination = new URL(encoded(next), here).pathname;
    let status = await call('MOVE', from, {Destination, Overwrite: 'F'});
    if (status === 412) {
      if (!await ask(next + ' exists already.', ['Replace it'])) return;
      status = await call('MOVE', from, {Destination, Overwrite: 'T'});
    }
    tell(isGood(status) ? '' : name + ': ' + why(status));
    await refresh();
  }

  async function remove(link, name) {
    const isFolder = link.pathname.endsWith('/');
    const what = isFolder ? 'Delete the folder ' + name + ' and all that is in it?' :
      'Delete ' + name + '?';
    if (!await ask(what, ['Delete'])) return;
    const status = await call('DELETE', pathOf(link));
    tell(isGood(status) ? '' : name + ': ' + why(status));
    await refresh();
  }

  // Adds the buttons to the rows.
  function equip() {
    const table = document.querySelector('table');
    const head = table.tHead.rows[0];
    if (!head.querySelector('.act')) {
      make('span', make('th', head, '', {className: 'act', scope: 'col'}), 'Actions',
        {className: 'unseen'});
    }
    for (const row of table.tBodies[0].rows) {
      const link = row.querySelector('a');
      if (!link || row.querySelector('.act')) continue;
      const cell = make('td', row, '', {className: 'act'});
      if (link.getAttribute('href').startsWith('../')) continue;
      const name = link.textContent.replace(/\/$/, '');
      button(cell, 'Rename', () => rename(link, name), 'Rename ' + name);
      button(cell, 'Delete', () => remove(link, name), 'Delete ' + name);
    }
  }

  // Shows the directory as it is now.
  async function refresh() {
    try {
      const answer = await fetch(here + location.search, {cache: 'no-store'});
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const rows = page.querySelector('tbody');
      if (!rows) return;
      document.querySelector('tbody').replaceWith(document.adoptNode(rows));
      document.dispatchEvent(new Event('rows'));
      equip();
    } catch (error) { /* The list stays as it was. */ }
  }

  // Uploads, one after the other.
  const queue = [];
  let running = false, forAll = '';
  const folders = new Map();

  function enqueue(items) {
    for (const item of items) {
      item.row = make('li', list);
      make('bdi', item.row, item.path);
      item.bar = make('progress', item.row, '', {max: 1, value: 0});
      item.bar.setAttribute('aria-label', item.path);
      item.state = make('span', item.row, 'waits', {className: 'state'});
      item.stop = button(item.row, 'Cancel', () => {
        item.cancelled = true;
        if (item.request) item.request.abort();
      }, 'Cancel ' + item.path);
      queue.push(item);
    }
    if (!running) run();
  }

  async function run() {
    running = true;
    forAll = '';
    folders.clear();
    while (queue.length) {
      const item = queue.shift();
      busy.add(item);
      item.state.textContent = '';
      const status = item.cancelled ? -1 : await store(item);
      busy.delete(item);
      item.stop.remove();
      if (isGood(status)) {
        item.bar.value = 1;
        item.row.className = 'done';
        item.state.textContent = 'done';
      } else {
        item.bar.remove();
        item.row.className = 'bad';
        item.state.textContent = status === -1 ? 'not uploaded' : why(status);
      }
    }
    running = false;
    await refresh();
    if (queue.length && !running) run();
  }

  // Makes a folder, and those around it, once.
  function ensure(path) {
    if (!path) return Promise.resolve(201);
    if (!folders.has(path)) {
      folders.set(path, (async () => {
        const above = await ensure(path.slice(0, Math.max(path.lastIndexOf('/'), 0)));
        if (!isGood(above)) return above;
        const status = await call('MKCOL', encoded(path));
        return status === 405 ? 201 : status;
      })());
    }
    return folders.get(path);
  }

  async function store(item) {
    const made = await ensure(item.file ? item.path.slice(0, Math.max(item.path.lastIndexOf('/'), 0))
      : item.path);
    if (!item.file || !isGood(made)) return made;
    const url = encoded(item.path);
    let exists = false;
    if (item.file.size > LARGE) {
      // No file has this tag: 412 says that all else is well.
      const status = await call('PUT', url, {'If-Match': '"-"'});
      if (status !== 412) return status;
      exists = await call('PROPFIND', url, {Depth: '0'}) === 207;
    }
    let status = exists ? 412 : await send(item, url, false);
    if (status !== 412) return status;
    const answer = forAll || await ask(item.path + ' exists already.', ['Replace', 'Skip'], undefined,
      'Do the same for all others');
    const choice = answer && answer.choice || answer || 'Skip';
    if (answer && answer.always) forAll = choice;
    return choice === 'Replace' ? send(item, url, true) : -1;
  }

  function send(item, url, replaces) {
    if (item.cancelled) return Promise.resolve(-1);
    return new Promise(resolve => {
      const request = item.request = new XMLHttpRequest();
      request.upload.onprogress = event => {
        item.bar.value = event.total ? event.loaded / event.total : 0;
        item.state.textContent = Math.floor(item.bar.value * 100) + ' %';
      };
      request.onload = () => resolve(request.status);
      request.onerror = request.ontimeout = () => resolve(0);
      request.onabort = () => resolve(-1);
      request.open('PUT', new URL(url, here));
      if (!replaces) request.setRequestHeader('If-None-Match', '*');
      request.setRequestHeader('Content-Type', 'application/octet-stream');
      request.send(item.file);
    });
  }

  // All files of a dropped entry. A folder without files is made, too.
  async function walk(entry, path, found) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
      if (file) found.push({path: path + entry.name, file});
      return;
    }
    const reader = entry.createReader(), inside = [];
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
        .catch(() => []);
      if (!some.length) break;
      inside.push(...some);
    }
    if (!inside.length) found.push({path: path + entry.name, file: null});
    for (const one of inside) await walk(one, path + entry.name + '/', found);
  }

  const hasFiles = event => [...event.dataTransfer.types].includes('Files');
  addEventListener('dragover', event => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    zone.classList.add('over');
  });
  addEventListener('dragleave', event => {
    if (!event.relatedTarget) zone.classList.remove('over');
  });
  addEventListener('drop', async event => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    zone.classList.remove('over');
    // The entries have to be taken before the first wait.
    const items = [...event.dataTransfer.items].filter(item => item.kind === 'file')
      .map(item => ({entry: item.webkitGetAsEntry && item.webkitGetAsEntry(), file: item.getAsFile()}));
    const found = [];
    for (const {entry, file} of items) {
      if (entry) await walk(entry, '', found);
      else if (file) found.push({path: file.name, file});
    }
    enqueue(found);
  });
  addEventListener('beforeunload', event => {
    if (busy.size || queue.length) event.preventDefault();
  });
  equip();
})();
