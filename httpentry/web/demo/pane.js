// One device: conversation list and thread of a Client. What users wrote is only ever put in
// as text.

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short' });
const NEAR_END = 80; // pixels from the end that still count as being there
const TYPING_FOR = 5_000; // ms

function element(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

// A hue of its own for every name.
function paint(avatar, uid) {
  let hash = 0;
  for (const char of uid) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  avatar.style.setProperty('--hue', hash % 360);
  avatar.textContent = [...uid][0]?.toUpperCase() ?? '';
}

function whenShort(ms) {
  if (!ms) return '';
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : date.format(at);
}

export class Pane {
  #client;
  #part = {};
  #open = null; // conv
  #nodes = new Map(); // key of a message -> its <li>
  #rows = new Map(); // conv -> its <li>
  #typing = null;
  #loading = false;
  #atStart = new Set(); // convs whose first message is here
  onUnread = () => {};

  constructor(client, { peer }) {
    this.#client = client;
    this.root = document.getElementById('pane').content.firstElementChild.cloneNode(true);
    for (const node of this.root.querySelectorAll('[data-part]')) this.#part[node.dataset.part] = node;
    this.#label();
    this.#listen();
    client.conversationWith(peer);
    this.#renderList();
    this.#renderState();
    if (matchMedia('(min-width: 46rem)').matches) this.#show([...client.conversations.keys()][0]);
  }

  #label() {
    const { uid } = this.#client;
    const p = this.#part;
    this.root.setAttribute('aria-label', `${uid}'s device`);
    this.root.id = `pane-${uid}`;
    p.name.textContent = uid;
    paint(p.avatar, uid);
    p.nav.setAttribute('aria-label', `${uid}'s conversations`);
    p.newUid.id = `new-${uid}`;
    p.newLabel.htmlFor = p.newUid.id;
    p.text.id = `text-${uid}`;
    p.textLabel.htmlFor = p.text.id;
  }

  #listen() {
    const client = this.#client;
    const p = this.#part;
    client.addEventListener('state', () => this.#renderState());
    client.addEventListener('conversations', () => this.#renderList());
    client.addEventListener('presence', () => { this.#renderList(); this.#renderPresence(); });
    client.addEventListener('messages', ({ detail }) => detail.conv === this.#open && this.#renderThread());
    client.addEventListener('arrived', ({ detail }) => detail.conv === this.#open && this.#peerTypes(false));
    client.addEventListener('typing', ({ detail }) => detail.conv === this.#open && this.#peerTypes(detail.on));
    p.plug.addEventListener('click', () => (client.state === 'offline' ? client.connect() : client.disconnect()));
    p.notice.querySelector('button').addEventListener('click', () => client.connect());
    p.back.addEventListener('click', () => this.#show(null));
    p.new.addEventListener('submit', (event) => { event.preventDefault(); this.#start(); });
    p.composer.addEventListener('submit', (event) => { event.preventDefault(); this.#send(); });
    p.text.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.#send(); }
    });
    p.text.addEventListener('input', () => {
      this.#grow();
      if (p.text.value && this.#open) client.typing(this.#open);
    });
    p.scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    p.jump.addEventListener('click', () => this.#toEnd());
    document.addEventListener('visibilitychange', () => this.#read());
    new ResizeObserver(() => this.#read()).observe(p.scroller);
  }

  // ---- list

  #renderState() {
    const { state } = this.#client;
    const p = this.#part;
    p.status.dataset.state = state;
    p.status.textContent = { online: 'online', connecting: 'connecting…', offline: 'offline', ended: 'signed out' }[state];
    p.plug.textContent = state === 'offline' ? 'Go online' : 'Go offline';
    p.plug.setAttribute('aria-pressed', state === 'offline');
    p.plug.hidden = state === 'ended';
    p.notice.hidden = state !== 'ended';
    if (state === 'ended') p.notice.querySelector('span').textContent = 'This user has signed in on another device.';
    this.#read();
  }

  #renderList() {
    const conversations = [...this.#client.conversations.values()].filter((c) => !c.hidden)
      .sort((a, b) => b.pinned - a.pinned || b.updatedMs - a.updatedMs || (a.conv < b.conv ? -1 : 1));
    for (const c of conversations) this.#renderRow(c);
    const list = this.#part.conversations;
    conversations.forEach((c, i) => {
      const row = this.#rows.get(c.conv);
      if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
    });
    const total = conversations.reduce((sum, c) => sum + c.unread, 0);
    this.#part.total.hidden = total === 0;
    this.#part.total.textContent = total > 99 ? '99+' : total;
    this.#part.total.setAttribute('aria-label', `${total} unread`);
    this.onUnread(total);
  }

  #renderRow(c) {
    let row = this.#rows.get(c.conv);
    if (!row) {
      const avatar = element('span', { className: 'avatar small', ariaHidden: 'true' });
      paint(avatar, c.peer);
      const button = element('button', { type: 'button' }, avatar,
        element('span', { className: 'who' }), element('time'), element('span', { className: 'last' }), element('span', { className: 'badge' }));
      button.addEventListener('click', () => this.#show(c.conv));
      row = element('li', {}, button);
      this.#rows.set(c.conv, row);
    }
    const last = c.preview();
    const online = this.#client.online.get(c.peer) ?? false;
    row.dataset.conv = c.conv;
    row.querySelector('.avatar').classList.toggle('online', online);
    row.querySelector('.who').textContent = c.peer;
    row.querySelector('time').textContent = whenShort(last?.createdMs);
    row.querySelector('.last').textContent = last ? `${last.own ? 'You: ' : ''}${last.recalled ? 'message recalled' : last.text}` : 'No messages yet';
    const badge = row.querySelector('.badge');
    badge.hidden = c.unread === 0;
    badge.textContent = c.unread > 99 ? '99+' : c.unread;
    row.firstChild.setAttribute('aria-current', c.conv === this.#open);
    row.firstChild.setAttribute('aria-label', `${c.peer}${c.unread ? `, ${c.unread} unread` : ''}${online ? ', online' : ''}`);
  }

  #start() {
    const uid = this.#part.newUid.value.trim();
    if (!uid || uid === this.#client.uid || !/^[A-Za-z0-9_.@-]{1,64}$/.test(uid)) return;
    this.#part.newUid.value = '';
    this.#show(this.#client.conversationWith(uid).conv);
  }

  // ---- thread

  #show(conv) {
    this.#open = conv;
    this.#nodes.clear();
    const p = this.#part;
    p.messages.replaceChildren();
    this.root.dataset.view = conv ? 'thread' : 'list';
    p.thread.hidden = !conv;
    p.empty.hidden = Boolean(conv);
    if (conv) {
      const c = this.#conversation();
      p.peer.textContent = c.peer;
      p.scroller.setAttribute('aria-label', `Messages with ${c.peer}`);
      paint(p.peerAvatar, c.peer);
      this.#peerTypes(false);
      this.#renderThread();
      this.#toEnd();
      this.#client.refreshPresence();
      this.#loadIfShort();
    }
    this.#renderList();
  }

  #conversation() {
    return this.#client.conversations.get(this.#open);
  }

  #renderThread() {
    const c = this.#conversation();
    const p = this.#part;
    const wasAtEnd = this.#atEnd();
    const shown = [...c.sorted().filter((m) => !m.event), ...c.pending];
    const keys = new Set();
    let before = null;
    shown.forEach((m, i) => {
      const key = m.own && m.id ? m.id : `seq-${m.seq}`;
      keys.add(key);
      let node = this.#nodes.get(key);
      if (!node) {
        node = this.#messageNode(m);
        this.#nodes.set(key, node);
      }
      this.#updateMessage(node, m, before, c);
      if (p.messages.children[i] !== node) p.messages.insertBefore(node, p.messages.children[i] ?? null);
      before = m;
    });
    for (const [key, node] of this.#nodes) {
      if (!keys.has(key)) { node.remove(); this.#nodes.delete(key); }
    }
    p.start.hidden = !(this.#atStart.has(c.conv) || (c.oldest() === 1 && c.messages.size));
    if (wasAtEnd) this.#toEnd();
    else p.jump.hidden = c.unread === 0;
    this.#read();
  }

  #messageNode(m) {
    const node = element('li', { className: 'message' });
    node.classList.toggle('own', m.own);
    const recall = element('button', { type: 'button', className: 'recall', textContent: 'Recall' });
    const retry = element('button', { type: 'button', className: 'retry', textContent: 'Try again' });
    recall.addEventListener('click', () => this.#recall(node, recall));
    retry.addEventListener('click', () => this.#client.retry(this.#open, node.message.id));
    node.append(element('p', { className: 'day', hidden: true }),
      element('div', { className: 'bubble' }, element('p', { className: 'text' }), element('span', { className: 'meta' })), recall, retry);
    return node;
  }

  #updateMessage(node, m, before, c) {
    node.message = m;
    const state = m.seq ? (m.own && m.seq <= c.peerReadSeq ? 'read' : 'sent') : m.state;
    const day = new Date(m.createdMs).toDateString();
    const newDay = !before || new Date(before.createdMs).toDateString() !== day;
    const dayNode = node.querySelector('.day');
    dayNode.hidden = !newDay;
    dayNode.textContent = newDay ? date.format(m.createdMs) : '';
    node.classList.toggle('follows', !newDay && before.own === m.own && m.createdMs - before.createdMs < 5 * 60_000);
    node.classList.toggle('recalled', Boolean(m.recalled));
    if (m.own) node.dataset.state = state;
    if (m.seq) node.dataset.seq = m.seq;
    const text = m.recalled ? (m.own ? 'You recalled this message' : 'This message was recalled') : m.text;
    const textNode = node.querySelector('.text');
    if (textNode.textContent !== text) textNode.textContent = text;
    const words = { sending: 'sending', sent: 'sent', read: 'read', failed: 'not sent' }[state];
    node.querySelector('.meta').textContent = [m.edited && 'edited', clock.format(m.createdMs), m.own && !m.recalled && words].filter(Boolean).join(' · ');
    const recall = node.querySelector('.recall');
    recall.hidden = !m.own || !m.seq || m.recalled;
    recall.setAttribute('aria-label', `Recall “${text.slice(0, 40)}”`);
    node.querySelector('.retry').hidden = state !== 'failed';
  }

  async #recall(node, button) {
    button.disabled = true;
    try {
      await this.#client.recall(this.#open, node.message.seq);
    } catch (error) {
      button.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  }

  #renderPresence() {
    const c = this.#conversation();
    if (!c) return;
    const online = this.#client.online.get(c.peer) ?? false;
    this.#part.peerAvatar.classList.toggle('online', online);
    this.#part.presence.textContent = this.#typing ? 'typing…' : online ? 'online' : 'offline';
    this.#part.presence.classList.toggle('typing', Boolean(this.#typing));
  }

  #peerTypes(on) {
    clearTimeout(this.#typing);
    this.#typing = on ? setTimeout(() => this.#peerTypes(false), TYPING_FOR) : null;
    this.#renderPresence();
  }

  #send() {
    const text = this.#part.text.value.trim();
    if (!text || !this.#open) return;
    this.#part.text.value = '';
    this.#grow();
    this.#client.send(this.#open, text);
    this.#toEnd();
  }

  #grow() {
    const { text } = this.#part;
    text.style.height = 'auto';
    text.style.height = `${Math.min(text.scrollHeight, 140)}px`;
  }

  // ---- scrolling

  #atEnd() {
    const { scroller } = this.#part;
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  }

  #toEnd() {
    const { scroller } = this.#part;
    scroller.scrollTop = scroller.scrollHeight;
    this.#part.jump.hidden = true;
  }

  #scrolled() {
    if (this.#atEnd()) {
      this.#part.jump.hidden = true;
      this.#read();
    }
    if (this.#part.scroller.scrollTop < 120) this.#loadOlder();
  }

  // Earlier messages go in above what is being read, which must not move.
  async #loadOlder() {
    const conv = this.#open;
    const c = this.#conversation();
    if (this.#loading || !c?.messages.size || this.#atStart.has(conv)) return;
    this.#loading = true;
    this.#part.older.hidden = false;
    const { scroller } = this.#part;
    const fromEnd = scroller.scrollHeight - scroller.scrollTop;
    try {
      const more = await this.#client.older(conv);
      if (!more) this.#atStart.add(conv);
    } catch { /* scrolling again asks again */ } finally {
      this.#loading = false;
      this.#part.older.hidden = true;
      if (conv === this.#open) {
        this.#renderThread();
        scroller.scrollTop = scroller.scrollHeight - fromEnd;
      }
    }
  }

  #loadIfShort() {
    const { scroller } = this.#part;
    if (this.#open && scroller.scrollHeight <= scroller.clientHeight) this.#loadOlder();
  }

  // Read is what is shown: thread open, page visible, scrolled to the end.
  #read() {
    const visible = this.#part.scroller.clientHeight > 0 && !document.hidden;
    if (this.#open && visible && this.#atEnd()) this.#client.markRead(this.#open);
  }
}
