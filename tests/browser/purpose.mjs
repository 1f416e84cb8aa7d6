// A clinician says why in a browser, and looks at an image.
//
//   node purpose.mjs LOGIN_URL PURPOSE_URL IMAGE_URL SCREENSHOT [CHROMIUM]
//
// Prints one JSON document with the answers on the way.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { faults } from './accessibility.mjs';

const [loginUrl, purposeUrl, imageUrl, picture, executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 390, height: 844 },
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const seen = { consoleErrors: [] };
try {
  const page = await context.newPage();
  page.on('console', (message) => message.type() === 'error' && seen.consoleErrors.push(message.text()));
  await page.goto(`${loginUrl}&next=/purpose`);
  seen.heading = await page.locator('h1').innerText();
  seen.chosen = await page.locator('input[name=purpose]:checked').inputValue();
  seen.faults = await page.evaluate(faults).catch((error) => [`not looked at: ${error.message}`]);
  await page.getByLabel('emergency treatment').check();
  await page.getByLabel('Reason').fill('unconscious, no relatives');
  await page.screenshot({ path: picture, fullPage: true });
  const answer = page.waitForResponse((response) => response.request().method() === 'POST');
  await page.getByRole('button', { name: 'Choose' }).click();
  seen.posted = (await answer).status();
  await page.goto(purposeUrl);
  seen.then = await page.locator('input[name=purpose]:checked').inputValue();
  seen.reason = await page.locator('textarea').inputValue();
  seen.image = await page.evaluate(async (url) => (await fetch(url, { headers: { accept: '*/*' } })).status, imageUrl).catch(String);
  if (seen.image !== 200) seen.image = (await page.goto(imageUrl).catch(() => null))?.status() ?? seen.image;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
  console.log(JSON.stringify(seen));
}
