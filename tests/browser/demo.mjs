// node demo.mjs URL CHROMIUM: what two people do on the demo page, step by step.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const [base, executablePath] = process.argv.slice(2);
const pictures = process.env.HONGYAN_SCREENSHOTS;
const TIMEOUT = 15_000;

const browser = await chromium.launch({
  executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
});

// page opens one, and fails the run for whatever goes wrong in it.
const faults = [];
async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && faults.push(m.text()));
  page.on('pageerror', (error) => faults.push(error.stack));
  page.on('request', (r) => r.url().startsWith(base) || r.url().startsWith('data:') || faults.push(`asked elsewhere: ${r.url()}`));
  await page.goto(base + path);
  return page;
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png` });
}

class Device {
  constructor(page, uid) {
    this.page = page;
    this.uid = uid;
    this.root = page.locator(`#pane-${uid}`);
  }

  online() { return this.root.locator('.status[data-state="online"]').waitFor(); }
  messages() { return this.root.locator('.message'); }
  message(text) { return this.root.locator('.message', { hasText: text }); }
  texts() { return this.root.locator('.message .text').allTextContents(); }
  write(text) { return this.root.getByLabel('Message', { exact: true }).fill(text); }

  async send(text) {
    await this.write(text);
    await this.root.getByRole('button', { name: 'Send' }).click();
  }

  async wantState(text, state) {
    await this.root.locator(`.message.own[data-state="${state}"]`, { hasText: text }).waitFor();
  }
}

async function eventually(what, check) {
  const end = Date.now() + TIMEOUT;
  for (;;) {
    const got = await check();
    if (got) return;
    if (Date.now() > end) assert.fail(`did not happen: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

// Messages without a page, as a user's own script would send them.
async function sendByHTTP(from, to, texts) {
  const answer = await fetch(`${base}/demo/session`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ uid: from }),
  });
  const { token } = await answer.json();
  for (const text of texts) {
    const sent = await fetch(`${base}/v1/messages`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` }, body: JSON.stringify({ to, text }),
    });
    assert.equal(sent.status, 200, await sent.text());
  }
}

async function step(name, run) {
  const began = Date.now();
  try {
    await run();
  } catch (error) {
    console.log(`FAILED  ${name}\n${error.stack}\nconsole: ${faults.join('\n')}`);
    await picture(page, 'failed');
    process.exit(1);
  }
  console.log(`ok  ${name} (${Date.now() - began} ms)`);
}

const page = await open('/demo?left=alice&right=bob');
const alice = new Device(page, 'alice');
const bob = new Device(page, 'bob');

await step('both log in and see each other online', async () => {
  await alice.online();
  await bob.online();
  await alice.root.locator('.presence', { hasText: 'online' }).waitFor();
  await bob.root.locator('.presence', { hasText: 'online' }).waitFor();
});

await step('a message arrives, is marked as read, and is there once on each side', async () => {
  await alice.send('Hello Bob, is the blue one still there? 鸿雁传书');
  await bob.message('鸿雁传书').waitFor();
  await alice.wantState('鸿雁传书', 'read');
  await bob.send('Yes, the last one.');
  await alice.message('the last one').waitFor();
  await bob.wantState('the last one', 'read');
  assert.equal(await alice.messages().count(), 2);
  assert.equal(await bob.messages().count(), 2);
});

await step('typing shows', async () => {
  await alice.write('I am typ');
  await bob.root.locator('.presence.typing').waitFor();
  await alice.write('');
});

await step('what users write is text, never HTML', async () => {
  const nasty = '<img src=x onerror="window.pwned=1"><b>bold</b> & "quotes"';
  await alice.send(nasty);
  await bob.message('onerror').waitFor();
  assert.ok((await bob.texts()).includes(nasty));
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.equal(await page.locator('.message b, .message img').count(), 0);
});

await step('messages written offline are sent in order when the line is back', async () => {
  await alice.root.getByRole('button', { name: 'Go offline' }).click();
  await alice.root.locator('.status[data-state="offline"]').waitFor();
  for (const n of [1, 2, 3]) await alice.send(`written offline ${n}`);
  await alice.wantState('written offline 3', 'sending');
  assert.equal(await bob.message('written offline').count(), 0);
  await bob.send('while you were away');
  await bob.wantState('while you were away', 'sent');
  await alice.root.getByRole('button', { name: 'Go online' }).click();
  await alice.online();
  await bob.message('written offline 3').waitFor();
  await alice.message('while you were away').waitFor();
  const order = (await bob.texts()).filter((t) => t.startsWith('written offline'));
  assert.deepEqual(order, [1, 2, 3].map((n) => `written offline ${n}`));
  await eventually('both devices show the same', async () => {
    const [a, b] = [await alice.texts(), await bob.texts()];
    return a.length === b.length && a.every((text, i) => text === b[i]);
  });
});

await step('a message is recalled on both sides', async () => {
  await alice.send('this was a mistake');
  await bob.message('this was a mistake').waitFor();
  const own = alice.message('this was a mistake');
  await own.hover();
  await own.getByRole('button', { name: /Recall/ }).click();
  await alice.message('You recalled this message').waitFor();
  await bob.message('This message was recalled').waitFor();
  assert.equal(await bob.message('this was a mistake').count(), 0);
});
await picture(page, 'desktop-light');

await step('a message from a script shows up live, and unread counts when it is not open', async () => {
  await sendByHTTP('carol', 'bob', ['Where is my order?', 'Hello?']);
  const row = bob.root.locator('li[data-conv="p:bob:carol"]');
  await row.locator('.badge', { hasText: '2' }).waitFor();
  await row.getByRole('button').click();
  await bob.message('Where is my order?').waitFor();
  await row.locator('.badge').waitFor({ state: 'hidden' });
  await bob.root.locator('li[data-conv="p:alice:bob"]').getByRole('button').click();
  await bob.message('the last one').waitFor();
});

await step('history loads on scrolling up, and the place does not jump', async () => {
  await sendByHTTP('dave', 'alice', Array.from({ length: 90 }, (_, i) => `line ${i + 1}`));
  await page.reload();
  await alice.online();
  await alice.root.locator('li[data-conv="p:alice:dave"]').getByRole('button').click();
  await alice.message(/^.*line 90/).waitFor();
  const scroller = alice.root.locator('.messages');
  const before = await alice.messages().count();
  assert.ok(before < 60, `${before} at first`);
  const { seq, place } = await scroller.evaluate((node) => {
    node.scrollTop = 60;
    const first = node.querySelector('.message');
    return { seq: first.dataset.seq, place: first.getBoundingClientRect().y };
  });
  await eventually('more is loaded', async () => (await alice.messages().count()) > before);
  const moved = (await alice.root.locator(`[data-seq="${seq}"]`).boundingBox()).y - place;
  assert.ok(Math.abs(moved) < 80, `what was being read moved by ${moved} pixels`);
  await eventually('all is loaded', async () => {
    await scroller.evaluate((node) => { node.scrollTop = 0; });
    return (await alice.messages().count()) === 90;
  });
  await alice.root.getByText('This is where the conversation begins.').waitFor();
  const lines = await alice.texts();
  assert.deepEqual(lines, Array.from({ length: 90 }, (_, i) => `line ${i + 1}`));
});

await step('everything that can be used has a name', async () => {
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, textarea, a')]
    .filter((n) => n.checkVisibility() && !(n.ariaLabel || n.labels?.[0]?.textContent || n.textContent.trim()))
    .map((n) => n.outerHTML));
  assert.deepEqual(nameless, []);
});

await step('a second tab of the same user is told so or lives beside it', async () => {
  const other = await open('/demo?left=alice&right=erin');
  const second = new Device(other, 'alice');
  await second.online();
  await bob.root.locator('li[data-conv="p:alice:bob"]').getByRole('button').click();
  await bob.send('to all your devices');
  await second.root.locator('li[data-conv="p:alice:bob"]').getByRole('button').click();
  await second.message('to all your devices').waitFor();
  await other.context().close();
});

await step('a phone shows one device, with a switch', async () => {
  const phone = await open('/demo?left=frank&right=grace', { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  const frank = new Device(phone, 'frank');
  const grace = new Device(phone, 'grace');
  await frank.online();
  assert.equal(await grace.root.isVisible(), false);
  await frank.root.locator('li[data-conv="p:frank:grace"]').getByRole('button').click();
  await frank.send('hi Grace');
  await frank.wantState('hi Grace', 'sent');
  await picture(phone, 'phone-thread');
  await phone.locator('.switch .badge', { hasText: '1' }).waitFor();
  await phone.getByRole('tab', { name: /grace/ }).click();
  assert.equal(await frank.root.isVisible(), false);
  await picture(phone, 'phone-list');
  await grace.root.locator('li[data-conv="p:frank:grace"]').getByRole('button').click();
  await grace.message('hi Grace').waitFor();
  await grace.root.getByRole('button', { name: 'Back to conversations' }).click();
  await grace.root.locator('li[data-conv="p:frank:grace"]').waitFor();
  const wide = await phone.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.equal(wide, false, 'nothing is wider than the phone');
  await phone.context().close();
});

await step('dark', async () => {
  const dark = await open('/demo?left=alice&right=bob', { colorScheme: 'dark' });
  await new Device(dark, 'alice').online();
  await new Device(dark, 'bob').message('to all your devices').waitFor();
  await picture(dark, 'desktop-dark');
  const docs = await open('/docs', { colorScheme: 'light' });
  await docs.getByText('Send a message').first().click();
  await docs.getByText('clientMsgId').first().waitFor();
  await picture(docs, 'docs');
});

await browser.close();
assert.deepEqual(faults, [], 'faults in the console');
