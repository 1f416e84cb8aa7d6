// An administrator looks at what the console tells of a consortium, puts a change to the vote, and reviews an emergency.
//
//   node consortium.mjs LOGIN_URL STUDY_UID CARD_FILE PICTURES
//
// Prints one JSON document: console errors, bad answers, breaches of the Content-Security-Policy, what each page fails of
// accessibility or does not fit (wide and narrow, light and dark), what was said on the way. Exits 0 at the end of it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { faults } from './accessibility.mjs';
import { watch } from './watching.mjs';

const [loginUrl, study, card, pictures] = process.argv.slice(2);
const origin = new URL(loginUrl).origin;
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const seen = { consoleErrors: [], badAnswers: [], breaches: [], accessibility: {}, sizes: {}, unseenFocus: [], said: {} };
const WIDE = { width: 1360, height: 900 };
const NARROW = { width: 390, height: 844 };

const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: WIDE,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

// The page as it is, in four looks; without loading it again, so that an answer to a form can be looked at too.
async function look(page, name) {
  for (const [what, viewport, colorScheme] of [
    ['narrow-dark', NARROW, 'dark'],
    ['narrow', NARROW, 'light'],
    ['dark', WIDE, 'dark'],
    ['wide', WIDE, 'light'],
  ]) {
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const found = await page.evaluate(faults);
    if (found.length) seen.accessibility[`${name} ${what}`] = found;
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    if (width > viewport.width) seen.sizes[`${name} ${what}`] = width;
    await page.screenshot({ path: join(pictures, `consortium-${name}-${what}.png`), fullPage: true });
  }
  seen.said[name] = await page.locator('main').innerText();
}

// Everything that acts can be reached by keyboard, and what has the focus is seen.
async function byKeyboard(page, name) {
  const stops = await page.locator('main').locator('a, button, input:not([type=hidden]), select, textarea, summary').count();
  await page.locator('main').focus();
  for (let stop = 0; stop < stops; stop += 1) {
    await page.keyboard.press('Tab');
    const hidden = await page.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      return style.outlineStyle === 'none' || style.outlineWidth === '0px';
    });
    if (hidden) seen.unseenFocus.push(`${name}: ${await page.evaluate(() => document.activeElement.outerHTML.slice(0, 80))}`);
  }
}

let status = 1;
const page = context.pages()[0];
try {
  page.setDefaultTimeout(60_000);
  await watch(page, seen);
  await page.goto(`${loginUrl}&next=/console/`, { waitUntil: 'load' });
  await look(page, 'timeline');
  const pages = { sharing: '/console/sharing', replicas: '/console/replicas', study: `/console/studies/${study}`, overview: '/console/consortium' };
  for (const [name, path] of Object.entries(pages)) {
    await page.goto(origin + path, { waitUntil: 'load' });
    await look(page, name);
    await byKeyboard(page, name);
  }

  // A change: the card is read from its file, shown decoded, and proposed once its fingerprint was compared.
  await page.getByRole('link', { name: 'Propose a change' }).click();
  await page.waitForURL('**/consortium/propose');
  await page.locator('#enroll-file').setInputFiles(card);
  await page.waitForFunction(() => document.getElementById('enroll-card').value.includes('END CAIRN MEMBER CARD'));
  await look(page, 'propose');
  await byKeyboard(page, 'propose');
  await page.locator('#enroll').getByRole('button', { name: 'Look at the card' }).click();
  await page.getByRole('button', { name: 'Put it to the vote' }).waitFor();
  await look(page, 'sure');
  await byKeyboard(page, 'sure');
  await page.getByRole('button', { name: 'Put it to the vote' }).click(); // the browser asks for the box first
  seen.heldBack = await page.locator('#compared').evaluate((box) => box.validity.valueMissing);
  await page.getByLabel('I compared the fingerprint').check();
  await page.getByRole('button', { name: 'Put it to the vote' }).click();
  await page.waitForURL('**/console/consortium#p-*');
  await look(page, 'proposed');

  // An emergency: from the first page to its review, and back.
  await page.goto(`${origin}/console/`, { waitUntil: 'load' });
  await page.getByRole('link', { name: 'Review', exact: true }).click();
  await page.waitForURL('**/console/emergencies');
  await look(page, 'emergencies');
  await page.locator('#waiting').getByRole('link', { name: /broke the glass/ }).click();
  await page.getByLabel(/^Finding/).waitFor();
  await look(page, 'emergency');
  await byKeyboard(page, 'emergency');
  await page.getByLabel(/^Finding/).fill('Looked at the head only; the patient could not be asked. Justified.');
  await page.getByRole('button', { name: 'Record the review' }).click();
  await page.waitForURL('**sent=review');
  const until = Date.now() + 30_000;
  while (!(await page.getByText('Reviewed by').count()) && Date.now() < until) {
    await page.waitForTimeout(300);
    await page.reload({ waitUntil: 'load' });
  }
  await look(page, 'reviewed');
  status = 0;
} catch (error) {
  seen.stopped = String(error);
  await page.screenshot({ path: join(pictures, 'consortium-failed.png') });
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(seen));
process.exit(status);
