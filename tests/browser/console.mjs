// Goes through the console as an auditor would: by mouse and by keyboard, wide and narrow, light and dark, with script
// and without.
//
//   node console.mjs LOGIN_URL CONSOLE_URL STUDY_UID SCREENSHOT_FOLDER [CHROMIUM]
//
// Prints one JSON document: what went wrong on the way (console errors, failed requests, bad answers, requests to other
// hosts, breaches of the Content-Security-Policy), what each page fails of accessibility, and what was found on the way.
// Exits 0 when the way was gone to its end; judging the rest is the caller's.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { faults } from './accessibility.mjs';

const [loginUrl, consoleUrl, study, pictures, executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const origin = new URL(consoleUrl).origin;
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const seen = { consoleErrors: [], failedRequests: [], badAnswers: [], foreign: [], breaches: [], accessibility: {}, sizes: {} };
const WIDE = { width: 1360, height: 900 };
const NARROW = { width: 390, height: 844 };

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: WIDE,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

function watch(page) {
  page.setDefaultTimeout(30_000);
  page.on('console', (message) => {
    if (message.type() === 'error') seen.consoleErrors.push(message.text());
  });
  page.on('pageerror', (error) => seen.consoleErrors.push(`uncaught: ${error.message}`));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) seen.foreign.push(request.url());
  });
  page.on('requestfailed', (request) => seen.failedRequests.push(`${request.url()} ${request.failure()?.errorText}`));
  page.on('response', (response) => {
    if (response.status() >= 400) seen.badAnswers.push(`${response.status()} ${response.url()}`);
  });
}

let status = 1;
try {
  const page = context.pages()[0];
  await page.exposeFunction('reportBreach', (what) => seen.breaches.push(what));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => window.reportBreach(`${event.violatedDirective} ${event.blockedURI}`));
  });
  // Who has no session is told how to get one, and nothing else is asked for.
  await page.goto(consoleUrl, { waitUntil: 'networkidle' });
  seen.outside = await page.locator('main').innerText();
  await page.screenshot({ path: join(pictures, 'console-login.png') });
  watch(page);
  await page.goto(loginUrl, { waitUntil: 'networkidle' });
  seen.afterLogin = new URL(page.url()).pathname;

  // By keyboard alone: the first stop leads past the header, and what has the focus can be seen.
  await page.keyboard.press('Tab');
  seen.firstStop = await page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press('Enter');
  seen.skippedTo = await page.evaluate(() => document.activeElement.id);
  seen.unseenFocus = [];
  seen.stops = [];
  for (let stop = 0; stop < 40; stop += 1) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const { activeElement: element } = document;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const inside = element.closest('svg') ? getComputedStyle(element.querySelector('.hit')).strokeWidth : '0px';
      // The button of a date field draws a ring of its own, which no page can ask for.
      const own = element.type === 'datetime-local';
      const visible = own || (outlineStyle !== 'none' && outlineWidth !== '0px');
      return { name: element.getAttribute('aria-label') || element.name || element.textContent.trim(), visible, inside };
    });
    seen.stops.push(at.name);
    if (!at.visible && at.inside === '0px') seen.unseenFocus.push(at.name);
  }

  // Type a patient's name, follow a facet, then a sentence's study, then an entry.
  await page.getByLabel('Patient or study').fill('CompressedSamples');
  await page.keyboard.press('Enter');
  await page.waitForURL(/patient=/);
  seen.patientEntries = await page.locator('table.events tbody tr:not(.day)').count();
  await page.getByRole('link', { name: /Add filter study.access/ }).click();
  await page.waitForURL(/type=study.access/);
  seen.views = await page.locator('table.events tbody tr:not(.day)').count();
  seen.sentence = await page.locator('td.told').first().innerText();
  await page.goBack();
  await page.getByRole('link', { name: /: details and proof$/ }).last().click();
  await page.waitForURL(/\/console\/entries\//);
  const entry = new URL(page.url()).pathname;

  // The browser's own verdict on the proof; then, with another log's key, the other verdict.
  await page.getByRole('button', { name: 'Verify in this browser' }).click();
  await page.locator('#verdict .note').waitFor();
  seen.verdict = await page.locator('#verdict').innerText();
  await page.screenshot({ path: join(pictures, 'console-verified.png'), fullPage: true });
  const key = await page.getByLabel('Key of the log').inputValue();
  await page.getByLabel('Key of the log').fill(key.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')));
  await page.locator('#verdict').evaluate((verdict) => verdict.replaceChildren());
  await page.getByRole('button', { name: 'Verify in this browser' }).click();
  await page.locator('#verdict .note').waitFor();
  seen.verdictOfAnotherKey = await page.locator('#verdict').innerText();
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Download proof' }).click()]);
  seen.downloaded = download.suggestedFilename();
  seen.proof = join(pictures, 'downloaded.tlog-proof');
  await download.saveAs(seen.proof);
  seen.key = key;

  const pages = {
    timeline: '/console/',
    narrowed: '/console/?type=study.store&outcome=0',
    entry,
    study: `/console/studies/${study}`,
    content: `/console/studies/${study}/content`,
    health: '/console/health',
    storage: '/console/storage',
    alerts: '/console/alerts',
    emergencies: '/console/emergencies',
  };
  for (const [name, path] of Object.entries(pages)) {
    for (const [look, viewport, colorScheme] of [
      ['wide', WIDE, 'light'],
      ['dark', WIDE, 'dark'],
      ['narrow', NARROW, 'light'],
      ['narrow-dark', NARROW, 'dark'],
    ]) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.goto(origin + path, { waitUntil: 'load' });
      const found = await page.evaluate(faults);
      if (found.length) seen.accessibility[`${name} ${look}`] = found;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > viewport.width) seen.sizes[`${name} ${look}`] = wide;
      await page.screenshot({ path: join(pictures, `console-${name}-${look}.png`), fullPage: true });
    }
  }

  // Without script everything but verifying works.
  await page.setViewportSize(WIDE);
  const session = await context.newCDPSession(page);
  await session.send('Emulation.setScriptExecutionDisabled', { value: true });
  await page.goto(`${origin}/console/`, { waitUntil: 'load' });
  await page.getByLabel('From').fill('2020-01-01T00:00');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.waitForURL(/since=2020/);
  seen.plainRows = await page.locator('table.events tbody tr:not(.day)').count();
  await page.goto(origin + entry, { waitUntil: 'load' });
  seen.plainButtonHidden = !(await page.getByRole('button', { name: 'Verify in this browser' }).isVisible());
  status = 0;
} catch (error) {
  seen.error = error.message;
  const page = context.pages()[0];
  if (page) await page.screenshot({ path: join(pictures, 'console-failed.png') });
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
process.stdout.write(`${JSON.stringify(seen, null, 1)}\n`);
process.exit(status);
