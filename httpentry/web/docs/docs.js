// Shows /v1/openapi.json. Everything is put in as text, never as HTML.

const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};

// prose shows `code` as code.
const prose = (text = '') => text.split('`').map((part, i) => (i % 2 ? el('code', { textContent: part }) : part));

const spec = await fetch('/v1/openapi.json').then((r) => r.json());
const resolve = (schema) => (schema?.$ref ? spec.components.schemas[schema.$ref.split('/').pop()] : schema) ?? {};
const nameOf = (schema) => schema?.$ref?.split('/').pop();

function typeOf(schema) {
  if (!schema) return '';
  if (schema.$ref) return nameOf(schema);
  if (schema.type === 'array') return `${typeOf(schema.items)}[]`;
  if (schema.enum) return schema.enum.join(' | ');
  return [schema.type ?? (schema.const !== undefined ? JSON.stringify(schema.const) : 'any'), schema.format ?? schema.contentEncoding]
    .filter(Boolean).join(', ');
}

function fields(schema, seen = []) {
  const name = nameOf(schema);
  const object = resolve(schema);
  const table = el('table');
  for (const [key, value] of Object.entries(object.properties ?? {})) {
    const required = object.required?.includes(key) ? ' *' : '';
    const description = el('td', {}, ...prose(value.description));
    const inner = value.$ref ? value : value.items?.$ref ? value.items : null;
    if (inner && !seen.includes(nameOf(inner)) && nameOf(inner) !== name) {
      const more = el('details', {}, el('summary', { textContent: nameOf(inner) }));
      more.addEventListener('toggle', () => {
        if (more.open && more.children.length === 1) {
          more.append(el('div', { className: 'body' }, fields(inner, [...seen, name])));
        }
      });
      description.append(more);
    }
    table.append(el('tr', {}, el('th', {}, el('code', { textContent: key + required })), el('td', { textContent: typeOf(value) }), description));
  }
  return table;
}

function operation(method, path, op) {
  const body = el('div', { className: 'body' });
  if (op.description) body.append(el('p', {}, ...prose(op.description)));
  if (op.parameters?.length) {
    body.append(el('h3', { textContent: 'Parameters' }), el('table', {}, ...op.parameters.map((p) => el('tr', {},
      el('th', {}, el('code', { textContent: p.name + (p.required ? ' *' : '') })),
      el('td', { textContent: `${p.in}, ${typeOf(p.schema)}${p.schema.maximum ? ` ≤ ${p.schema.maximum}` : ''}` }),
      el('td', {}, ...prose(p.description))))));
  }
  const input = op.requestBody?.content?.['application/json']?.schema;
  if (input) body.append(el('h3', { textContent: `Body${op.requestBody.required ? '' : ' (may be missing)'}` }), fields(input));
  body.append(el('h3', { textContent: 'Answers' }));
  for (const [status, answer] of Object.entries(op.responses)) {
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    body.append(el('p', {}, el('strong', { textContent: status }), ' ', ...prose(answer.description)));
    if (status === '200' && schema && (schema.$ref || schema.properties)) body.append(fields(schema));
  }
  return el('details', { id: op.operationId },
    el('summary', {},
      el('code', { className: 'method', textContent: method.toUpperCase() }),
      el('code', { textContent: path }),
      el('span', { className: 'title', textContent: op.summary })),
    body);
}

const about = document.getElementById('about');
about.textContent = `${spec.info.version} — ${spec.info.description}\n`;
about.append(el('a', { href: '/v1/openapi.json', textContent: 'The OpenAPI document' }));

const byTag = new Map(spec.tags.map((tag) => [tag.name, []]));
for (const [path, item] of Object.entries(spec.paths)) {
  for (const [method, op] of Object.entries(item)) {
    const tag = op.tags[0];
    byTag.set(tag, [...(byTag.get(tag) ?? []), operation(method, path, op)]);
  }
}
const main = document.getElementById('operations');
for (const [tag, list] of byTag) main.append(el('section', {}, el('h2', { textContent: tag }), ...list));
if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute('open', '');
