// An administrator gives a study to another hospital in the console, or takes it back.
//
//   node sharing.mjs LOGIN_URL STUDY_UID HOSPITAL grant|revoke SCREENSHOT_PREFIX [CHROMIUM]
//
// Prints one JSON document: console errors, bad answers, breaches of the Content-Security-Policy, what each page fails of
// accessibility, what the page said before and after. Exits 0 when the button was pressed and answered.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { faults } from './accessibility.mjs';
import { watch } from './watching.mjs';

const [loginUrl, study, hospital, act, prefix, executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const origin = new URL(loginUrl).origin;
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const seen = { consoleErrors: [], badAnswers: [], breaches: [], accessibility: {}, pages: {} };

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 1360, height: 900 },
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

async function look(page, name) {
  seen.pages[name] = await page.locator('main').innerText();
  const found = await page.evaluate(faults);
  if (found.length > 0) seen.accessibility[name] = found;
  await page.screenshot({ path: `${prefix}-${name}.png`, fullPage: true });
}

let status = 1;
try {
  const page = context.pages()[0];
  page.setDefaultTimeout(60_000);
  await watch(page, seen);
  await page.goto(`${loginUrl}&next=/console/`, { waitUntil: 'networkidle' });
  await page.goto(`${origin}/console/consortium`, { waitUntil: 'networkidle' });
  await look(page, 'consortium');
  if (act === 'grant') {
    await page.goto(`${origin}/console/studies/${study}`, { waitUntil: 'networkidle' });
    await look(page, 'study');
    await page.getByLabel('Hospital').selectOption(hospital);
    await page.getByLabel('Ends after').selectOption({ label: '7 days' });
    await Promise.all([page.waitForURL('**#sharing'), page.getByRole('button', { name: 'Share', exact: true }).click()]);
    await look(page, 'given');
  } else {
    await page.goto(`${origin}/console/sharing`, { waitUntil: 'networkidle' });
    await look(page, 'sharing');
    await page.getByRole('button', { name: `Revoke what was given to ${hospital}` }).click();
    await page.getByRole('button', { name: 'Revoke it' }).waitFor();
    await look(page, 'sure');
    await Promise.all([
      page.waitForResponse((response) => response.request().method() === 'POST'),
      page.getByRole('button', { name: 'Revoke it' }).click(),
    ]);
    await page.waitForLoadState('networkidle');
    await look(page, 'revoked');
  }
  status = 0;
} catch (error) {
  seen.stopped = String(error);
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(seen));
process.exit(status);
