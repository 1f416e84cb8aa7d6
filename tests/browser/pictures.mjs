// Takes pictures of pages of the console, 1280 wide, for docs/images.
//
//   node pictures.mjs LOGIN_URL FOLDER NAME=PATH...
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [loginUrl, folder, ...pages] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1280, height: 700 },
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = context.pages()[0];
  await page.goto(`${loginUrl}&next=/console/`, { waitUntil: 'load' });
  for (const [name, path] of pages.map((given) => given.split('='))) {
    await page.goto(new URL(path, loginUrl).href, { waitUntil: 'load' });
    const whole = await page.evaluate(() => document.querySelector('main').getBoundingClientRect().bottom);
    await page.setViewportSize({ width: 1280, height: Math.min(Math.ceil(whole), 1100) });
    await page.screenshot({ path: join(folder, `${name}.png`) });
  }
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
