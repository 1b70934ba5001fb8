// The page: one pane each for two users. ?left=carol&right=dave for others than alice and bob.
import { Client } from '/demo/client.js';
import { Pane } from '/demo/pane.js';

const query = new URLSearchParams(location.search);
const users = [query.get('left') || 'alice', query.get('right') || 'bob'];
const url = `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}/v1/ws`;

// Who may be whom is decided by the server, in demo mode only. A platform's own backend
// signs tokens for its users instead.
async function session(uid) {
  const answer = await fetch('/demo/session', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ uid }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message);
  return body.token;
}

const panes = document.querySelector('.panes');
const tabs = document.querySelector('.switch');

function show(index) {
  panes.dataset.shown = index;
  [...tabs.children].forEach((tab, i) => tab.setAttribute('aria-selected', i === index));
}

users.forEach((uid, index) => {
  const client = new Client({ uid, url, token: () => session(uid) });
  const pane = new Pane(client, { peer: users[1 - index] });
  panes.append(pane.root);

  const tab = document.createElement('button');
  Object.assign(tab, { type: 'button', textContent: uid });
  tab.setAttribute('role', 'tab');
  tab.addEventListener('click', () => show(index));
  const badge = document.createElement('span');
  badge.className = 'badge';
  badge.hidden = true;
  tab.append(badge);
  tabs.append(tab);
  pane.onUnread = (count) => {
    badge.hidden = count === 0;
    badge.textContent = count > 99 ? '99+' : count;
    badge.setAttribute('aria-label', `${count} unread`);
  };
  client.connect();
});
show(0);
