// A client of the Hongyan protocol over WebSocket, in its JSON form. It keeps conversations
// and messages in memory, so a reload starts from cursor 0; a device that keeps them on disk
// keeps its cursor with them, written together.
//
// Events (all CustomEvent, detail as named): 'state' {state, reason}, 'conversations',
// 'messages' {conv}, 'arrived' {conv} when the other side said something new, 'typing' {conv,
// uid, on}, 'presence'.

const RETRY_AFTER = 5_000; // ms without SEND_ACK until a message is sent again
const GIVE_UP_AFTER = 120_000; // ms until it counts as failed; the user may try again
const ACK_EVERY = 200; // ms, PUSH_ACK at most
const REQUEST_TIMEOUT = 15_000;

const num = (value) => Number(value ?? 0); // 64-bit numbers are strings in JSON

export class RequestError extends Error {
  constructor({ code, name, message, retryable, retryAfterMs }) {
    super(message || name);
    Object.assign(this, { code, name, retryable, retryAfterMs });
  }
}

export function privateConversation(a, b) {
  return a < b ? `p:${a}:${b}` : `p:${b}:${a}`;
}

// UUID version 7: sorted by time, unique to this device.
function newMessageID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let ms = Date.now();
  for (let i = 5; i >= 0; i--, ms = Math.floor(ms / 256)) bytes[i] = ms % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

class Conversation {
  constructor(conv, peer) {
    Object.assign(this, {
      conv, peer, lastSeq: 0, readSeq: 0, peerReadSeq: 0, unread: 0, updatedMs: 0, pinned: false, hidden: false, blocked: false,
      messages: new Map(), // by seq
      pending: [], // not acknowledged, in order of sending
      modsKnown: 0, // recalls and edits up to here are applied
      asked: new Set(), // ranges being fetched
    });
  }

  sorted() {
    return [...this.messages.values()].sort((a, b) => a.seq - b.seq);
  }

  oldest() {
    return this.messages.size ? Math.min(...this.messages.keys()) : this.lastSeq + 1;
  }

  // Last message a person would count.
  preview() {
    const waiting = this.pending.at(-1);
    if (waiting) return waiting;
    return this.sorted().findLast((m) => !m.event);
  }
}

export class Client extends EventTarget {
  #socket = null;
  #seq = 0;
  #requests = new Map(); // seq -> {resolve, reject, timer}
  #cursor = { epoch: 0, version: 0 };
  #own = new Set(); // versions that answers to this device's own requests told, beyond the cursor
  #failures = 0;
  #timers = {};
  #wanted = false;
  #syncing = null;
  #written = 0;
  #heard = 0;
  #heartbeat = 25_000;

  constructor({ uid, token, url }) {
    super();
    this.uid = uid;
    this.url = url;
    this.token = token; // () => Promise<string>
    this.state = 'offline';
    this.conversations = new Map();
    this.online = new Map(); // uid -> bool
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => document.hidden || this.#hurry());
    setInterval(() => this.#beat(), 1_000);
  }

  // ---- connection

  connect() {
    this.#wanted = true;
    this.#failures = 0;
    this.#open();
  }

  disconnect() {
    this.#wanted = false;
    clearTimeout(this.#timers.reconnect);
    this.#socket?.close(1000);
    this.#setState('offline');
  }

  #hurry() {
    if (this.#wanted && !this.#socket && this.state !== 'ended') {
      this.#failures = 0;
      this.#open();
    }
  }

  async #open() {
    clearTimeout(this.#timers.reconnect);
    if (this.#socket) return;
    this.#setState('connecting');
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.onmessage = (event) => this.#socket === socket && this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#socket === socket && this.#closed(event.code, event.reason);
    socket.onopen = async () => {
      try {
        await this.#login();
      } catch (error) {
        if (this.#socket === socket) socket.close(1000, error.message.slice(0, 80));
      }
    };
  }

  async #login() {
    const device = this.#device();
    await this.#request('HELLO', { clientVersion: 'demo', device: device.id, platform: 'web' });
    const ack = await this.#request('AUTH', {
      token: await this.token(), platform: 'web', device: device.id, connectionCounter: String(device.counter),
      epoch: String(this.#cursor.epoch), cursor: String(this.#cursor.version), modsKnown: this.#modsKnown(),
    });
    this.#heartbeat = num(ack.heartbeatS) * 1000 || this.#heartbeat;
    this.#failures = 0;
    this.#setState('online');
    await this.#applySync(ack.sync ?? {});
    this.#resend();
    this.#askPresence();
  }

  // A tab is a device of its own. Its counter rises with each login, so that a login that was
  // slow cannot take over from a later one.
  #device() {
    const key = `hongyan-demo-${this.uid}`;
    const saved = JSON.parse(sessionStorage.getItem(key) ?? 'null') ?? { id: `web-${crypto.randomUUID()}`, counter: 0 };
    saved.counter = Math.max(saved.counter + 1, Date.now());
    sessionStorage.setItem(key, JSON.stringify(saved));
    return saved;
  }

  #closed(code, reason) {
    this.#socket = null;
    for (const { reject, timer } of this.#requests.values()) {
      clearTimeout(timer);
      reject(new RequestError({ name: 'closed', message: 'the connection ended', retryable: true }));
    }
    this.#requests.clear();
    this.#syncing = null;
    if (!this.#wanted) return;
    if (code >= 4400 && code < 4500) { // final: another login took over, banned, ...
      this.#wanted = false;
      this.#setState('ended', reason || `closed with ${code}`);
      return;
    }
    this.#setState('connecting', reason);
    const ceiling = Math.min(20_000, 500 * 2 ** this.#failures++);
    this.#timers.reconnect = setTimeout(() => this.#open(), Math.random() * ceiling);
  }

  // Ping only when nothing was written for a heartbeat; give up on a line that is dead.
  #beat() {
    if (this.state !== 'online') return;
    const now = Date.now();
    if (now - this.#heard > 2 * this.#heartbeat + 5_000) {
      this.#socket.close(1000, 'nothing was heard');
      this.#closed(1006, 'the line is dead');
    } else if (now - this.#written > this.#heartbeat) {
      this.#request('PING', {}).catch(() => {});
    }
  }

  #setState(state, reason = '') {
    this.state = state;
    this.#emit('state', { state, reason });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ---- frames

  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
    this.#written = Date.now();
  }

  #request(cmd, body) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) {
        reject(new RequestError({ name: 'offline', message: 'not connected', retryable: true }));
        return;
      }
      const seq = ++this.#seq;
      const timer = setTimeout(() => {
        this.#requests.delete(seq);
        reject(new RequestError({ name: 'timeout', message: `no answer to ${cmd}`, retryable: true }));
      }, REQUEST_TIMEOUT);
      this.#requests.set(seq, { resolve, reject, timer });
      this.#write({ cmd, seq, body });
    });
  }

  #tell(cmd, body) {
    if (this.state === 'online') this.#write({ cmd, oneWay: true, body });
  }

  #receive(frame) {
    this.#heard = Date.now();
    const { cmd, seq, status, response, body = {} } = frame;
    if (response) {
      const request = this.#requests.get(seq);
      this.#requests.delete(seq);
      clearTimeout(request?.timer);
      // Nobody waits for it any more, but no push brings a change that an answer tells.
      if (!request && !status && body.conv && num(body.version)) this.#moved(this.#conversation(body.conv), body);
      if (status) request?.reject(new RequestError(body));
      else request?.resolve(body);
      return;
    }
    switch (cmd) {
      case 'PUSH': this.#push(body); break;
      case 'NOTICE': this.#sync(); break;
      case 'TYPING': this.#emit('typing', { conv: body.conv, uid: body.uid, on: !body.stopped }); break;
      case 'PING': break;
    }
  }

  // ---- receiving

  #push({ epoch, changes = [] }) {
    for (const change of changes) {
      const version = num(change.version);
      if (num(epoch) !== this.#cursor.epoch && this.#cursor.version > 0) {
        this.#sync();
        return;
      }
      if (version > this.#cursor.version + 1) {
        this.#sync();
        return;
      }
      this.#applyChange(change, version > this.#cursor.version);
      if (version > this.#cursor.version) this.#moveTo(num(epoch), version);
    }
    this.#ackSoon();
  }

  #moveTo(epoch, version) {
    if (epoch !== this.#cursor.epoch) this.#own.clear();
    while (this.#own.delete(version + 1)) version++;
    this.#cursor = { epoch, version };
  }

  // What this device did itself is not pushed to it: the answer tells the change's version.
  #moved(c, { epoch, version, lastSeq }) {
    c.lastSeq = Math.max(c.lastSeq, num(lastSeq));
    const { epoch: known, version: cursor } = this.#cursor;
    if (num(version) > cursor && (num(epoch) === known || cursor === 0)) {
      this.#own.add(num(version));
      this.#moveTo(num(epoch), cursor);
      this.#ackSoon();
    }
    this.#fillGaps(c);
  }

  #ackSoon() {
    this.#timers.ack ??= setTimeout(() => {
      this.#timers.ack = null;
      this.#tell('PUSH_ACK', { epoch: String(this.#cursor.epoch), cursor: String(this.#cursor.version) });
    }, ACK_EVERY);
  }

  #sync() {
    this.#syncing ??= (async () => {
      try {
        const answer = await this.#request('SYNC', {
          epoch: String(this.#cursor.epoch), cursor: String(this.#cursor.version), modsKnown: this.#modsKnown(),
        });
        this.#syncing = null;
        await this.#applySync(answer);
      } catch {
        this.#syncing = null; // the next notice, or login, brings us level
      }
    })();
    return this.#syncing;
  }

  async #applySync({ mustReset, epoch, nextCursor, more, changes = [], modified = [] }) {
    if (mustReset) {
      this.#cursor = { epoch: 0, version: 0 };
      await this.#sync();
      return;
    }
    for (const change of changes) this.#applyChange(change, true);
    for (const message of modified) this.#applyMessage(this.#conversation(message.conv), message);
    if (num(epoch)) this.#moveTo(num(epoch), Math.max(num(nextCursor), num(epoch) === this.#cursor.epoch ? this.#cursor.version : 0));
    for (const message of modified) this.#emit('messages', { conv: message.conv });
    this.#emit('conversations');
    this.#ackSoon();
    if (more) await this.#sync();
  }

  #modsKnown() {
    return [...this.conversations.values()].filter((c) => c.messages.size).map((c) => ({ conv: c.conv, seq: String(c.modsKnown) }));
  }

  #conversation(conv, peer) {
    let found = this.conversations.get(conv);
    if (!found) {
      found = new Conversation(conv, peer ?? conv.split(':').slice(1).find((part) => part !== this.uid) ?? this.uid);
      this.conversations.set(conv, found);
    }
    return found;
  }

  #applyChange(change, isNews) {
    const c = this.#conversation(change.conv, change.peer);
    const messages = change.messages ?? [];
    if (isNews) {
      c.lastSeq = Math.max(c.lastSeq, num(change.lastSeq));
      c.readSeq = Math.max(c.readSeq, num(change.readSeq));
      c.peerReadSeq = Math.max(c.peerReadSeq, num(change.peerReadSeq));
      c.unread = num(change.unread);
      c.updatedMs = num(change.updatedMs) || c.updatedMs;
      for (const field of ['pinned', 'muted', 'hidden', 'blocked']) c[field] = Boolean(change[field]);
    }
    for (const message of messages) this.#applyMessage(c, message);
    if (isNews && messages.some((m) => m.sender !== this.uid)) this.#emit('arrived', { conv: c.conv });
    this.#fillGaps(c);
    this.#emit('messages', { conv: c.conv });
    this.#emit('conversations');
  }

  #applyMessage(c, raw) {
    const message = {
      id: raw.clientMsgId, seq: num(raw.seq), sender: raw.sender, text: raw.text ?? '', createdMs: num(raw.createdMs), modSeq: num(raw.modSeq),
      recalled: Boolean(raw.recalled), edited: num(raw.modSeq) > 0 && !raw.recalled, target: num(raw.targetSeq),
      event: (raw.kind ?? '').startsWith('EVENT_') ? raw.kind : '', kind: raw.kind ?? 'TEXT', own: raw.sender === this.uid,
    };
    c.pending = c.pending.filter((p) => p.id !== raw.clientMsgId); // a pending bubble meets its stored self
    const known = c.messages.get(message.seq);
    if (known && known.modSeq > message.modSeq) return; // the later modification wins
    c.messages.set(message.seq, message);
    c.updatedMs = Math.max(c.updatedMs, message.createdMs);
    if (message.event === 'EVENT_RECALL' || message.event === 'EVENT_EDIT') this.#applyModification(c, message);
  }

  #applyModification(c, event) {
    c.modsKnown = Math.max(c.modsKnown, event.seq);
    const target = c.messages.get(event.target);
    if (!target || target.modSeq >= event.seq) return;
    const recalled = event.event === 'EVENT_RECALL';
    c.messages.set(event.target, { ...target, modSeq: event.seq, recalled, edited: !recalled, text: recalled ? '' : event.text });
  }

  // Every seq between the oldest message here and the conversation's last one is fetched.
  #fillGaps(c) {
    if (!c.messages.size) return;
    let from = 0;
    for (let seq = c.oldest() + 1; seq <= c.lastSeq + 1; seq++) {
      const missing = seq <= c.lastSeq && !c.messages.has(seq);
      if (missing && !from) from = seq;
      if (!missing && from) {
        this.#fetchRange(c, from, seq - 1);
        from = 0;
      }
    }
  }

  async #fetchRange(c, from, to) {
    to = Math.min(to, from + 199);
    const key = `${from}-${to}`;
    if (c.asked.has(key)) return;
    c.asked.add(key);
    try {
      await this.#history(c, { fromSeq: String(from), toSeq: String(to) });
      this.#fillGaps(c);
    } catch { /* the next change asks again */ }
    c.asked.delete(key);
  }

  async #history(c, query) {
    const answer = await this.#request('HISTORY', { conv: c.conv, ...query });
    for (const message of [...(answer.messages ?? []), ...(answer.modified ?? [])]) this.#applyMessage(c, message);
    this.#emit('messages', { conv: c.conv });
    return answer;
  }

  // ---- what a page calls

  // Opens a conversation that may not exist yet.
  conversationWith(peer) {
    const c = this.#conversation(privateConversation(this.uid, peer), peer);
    this.#emit('conversations');
    return c;
  }

  // Loads older messages; resolves to false when there are none.
  async older(conv) {
    const c = this.#conversation(conv);
    const before = c.oldest();
    if (before <= 1) return false;
    const answer = await this.#history(c, { beforeSeq: String(before), limit: 30 });
    return Boolean(answer.messages?.length) && c.oldest() > 1;
  }

  send(conv, text) {
    const c = this.#conversation(conv);
    const pending = { id: newMessageID(), text, state: 'sending', attempt: 0, createdMs: Date.now(), own: true, sender: this.uid };
    c.pending.push(pending);
    c.updatedMs = pending.createdMs;
    this.typed = 0; // what is typed next is news again
    this.#emit('messages', { conv });
    this.#emit('conversations');
    this.#attempt(c, pending);
  }

  retry(conv, id) {
    const c = this.#conversation(conv);
    const pending = c.pending.find((p) => p.id === id);
    if (!pending) return;
    Object.assign(pending, { state: 'sending', createdMs: Date.now() });
    this.#emit('messages', { conv });
    this.#attempt(c, pending);
  }

  async #attempt(c, pending) {
    clearTimeout(pending.timer);
    if (pending.state !== 'sending' || !c.pending.includes(pending)) return;
    if (Date.now() - pending.createdMs > GIVE_UP_AFTER) {
      this.#fail(c, pending, 'no answer');
      return;
    }
    pending.timer = setTimeout(() => this.#attempt(c, pending), RETRY_AFTER);
    if (this.state !== 'online') return; // the login sends it
    pending.attempt++;
    const earlier = c.pending.slice(0, c.pending.indexOf(pending)).findLast((p) => p.state === 'sending');
    try {
      const ack = await this.#request('SEND', {
        clientMsgId: pending.id, attempt: pending.attempt, after: earlier?.id, conv: c.conv, text: pending.text,
        displayedSeq: String(c.readSeq),
      });
      this.#acked(c, pending, ack);
    } catch (error) {
      if (!error.retryable) {
        this.#fail(c, pending, error.message);
        return;
      }
      if (pending.state === 'sending' && this.state === 'online') {
        clearTimeout(pending.timer);
        pending.timer = setTimeout(() => this.#attempt(c, pending), error.retryAfterMs || 500 + Math.random() * 1000);
      }
    }
  }

  #acked(c, pending, ack) {
    clearTimeout(pending.timer);
    const seq = num(ack.seq);
    c.pending = c.pending.filter((p) => p !== pending);
    if (!c.messages.has(seq)) {
      this.#applyMessage(c, {
        seq, sender: this.uid, text: pending.text, createdMs: ack.createdMs, clientMsgId: pending.id, kind: 'TEXT',
      });
    }
    c.lastSeq = Math.max(c.lastSeq, seq);
    this.#moved(c, ack);
    this.#emit('messages', { conv: c.conv });
    this.#emit('conversations');
  }

  #fail(c, pending, reason) {
    clearTimeout(pending.timer);
    Object.assign(pending, { state: 'failed', reason });
    this.#emit('messages', { conv: c.conv });
    this.#emit('conversations');
  }

  #resend() {
    for (const c of this.conversations.values()) for (const pending of c.pending) this.#attempt(c, pending);
  }

  async markRead(conv) {
    const c = this.#conversation(conv);
    if (this.state !== 'online' || c.unread === 0 || c.lastSeq <= c.readSeq) return;
    const seq = c.lastSeq;
    c.readSeq = seq;
    c.unread = 0;
    this.#emit('conversations');
    try {
      const ack = await this.#request('READ', { conv, seq: String(seq) });
      c.readSeq = Math.max(c.readSeq, num(ack.readSeq));
      this.#moved(c, ack);
    } catch { /* the next one goes further */ }
  }

  async recall(conv, seq) {
    const c = this.#conversation(conv);
    const ack = await this.#request('RECALL', { clientMsgId: newMessageID(), conv, seq: String(seq), attempt: 1 });
    this.#applyMessage(c, { seq: ack.seq, sender: this.uid, kind: 'EVENT_RECALL', targetSeq: seq, createdMs: ack.createdMs });
    this.#moved(c, ack);
    this.#emit('messages', { conv });
    this.#emit('conversations');
  }

  typing(conv) {
    const now = Date.now();
    if (now - (this.typed ?? 0) < 3_000) return;
    this.typed = now;
    this.#tell('TYPING', { conv });
  }

  async #askPresence() {
    clearTimeout(this.#timers.presence);
    this.#timers.presence = setTimeout(() => this.#askPresence(), 10_000);
    const uids = [...this.conversations.values()].filter((c) => c.conv.startsWith('p:')).map((c) => c.peer).slice(0, 100);
    if (this.state !== 'online' || !uids.length) return;
    try {
      const answer = await this.#request('PRESENCE', { uids });
      this.online = new Map((answer.users ?? []).map((u) => [u.uid, Boolean(u.online)]));
      this.#emit('presence');
    } catch { /* asked again soon */ }
  }

  // Asks at once who is online: a conversation was opened.
  refreshPresence() {
    this.#askPresence();
  }
}
