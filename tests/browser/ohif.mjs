// Opens a study in the viewer as a person would: the login link, the study list, the study, its first picture.
//
//   node ohif.mjs LOGIN_URL OHIF_URL PATIENT_NAME SCREENSHOT_PREFIX [MARKER]
//
// With MARKER, the name of a file, it makes that file when the picture is drawn, keeps the tab open, and waits until the
// tab leaves the study by itself; `ended` is what it says then.
//
// Prints one JSON document: what was seen, every console error, every failed request and answer of 400 or more, how
// many requests went out by method. Exits 0 when a picture was drawn; judging the rest is the caller's.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [loginUrl, ohifUrl, patientName, prefix, marker] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const seen = { consoleErrors: [], failedRequests: [], badAnswers: [], methods: {}, foreign: [], frames: 0 };
const PATIENCE_MS = 90_000;

const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1400, height: 900 },
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--use-gl=angle',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
  ],
});

// How many different grey levels the largest canvas shows; 1 while nothing is drawn.
async function greyLevels(page) {
  const canvas = page.locator('canvas.cornerstone-canvas').first();
  const png = await canvas.screenshot();
  return page.evaluate(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const copy = document.createElement('canvas');
    copy.width = image.width;
    copy.height = image.height;
    const pen = copy.getContext('2d');
    pen.drawImage(image, 0, 0);
    // The middle half: the overlay's text stands in the corners and would be taken for a picture.
    const part = pen.getImageData(image.width / 4, image.height / 4, image.width / 2, image.height / 2).data;
    const levels = new Set();
    for (let i = 0; i < part.length; i += 4) levels.add(part[i + 1]);
    return levels.size;
  }, png.toString('base64'));
}

let status = 1;
try {
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('console', (message) => {
    if (message.type() === 'error') seen.consoleErrors.push(message.text());
  });
  page.on('pageerror', (error) => seen.consoleErrors.push(`uncaught: ${error.message}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    seen.methods[request.method()] = (seen.methods[request.method()] ?? 0) + 1;
    if (url.protocol.startsWith('http') && url.origin !== new URL(ohifUrl).origin) seen.foreign.push(request.url());
    if (url.pathname.includes('/frames/')) seen.frames += 1;
  });
  page.on('requestfailed', (request) => {
    seen.failedRequests.push(`${request.method()} ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on('response', (response) => {
    if (response.status() >= 400) seen.badAnswers.push(`${response.status()} ${response.url()}`);
  });

  await page.goto(loginUrl, { waitUntil: 'load' });
  seen.afterLogin = new URL(page.url()).pathname;
  if (seen.afterLogin !== new URL(ohifUrl).pathname) await page.goto(ohifUrl, { waitUntil: 'load' });

  const row = page.getByText(patientName, { exact: false }).first();
  await row.waitFor({ state: 'visible' });
  await page.screenshot({ path: `${prefix}-list.png` });
  seen.listed = true;

  await row.click();
  await page.getByRole('button', { name: 'Basic Viewer' }).click();
  await page.waitForURL(/StudyInstanceUIDs=/);
  await page.locator('canvas.cornerstone-canvas').first().waitFor({ state: 'visible' });

  const until = Date.now() + PATIENCE_MS;
  do {
    seen.greyLevels = await greyLevels(page);
  } while (seen.greyLevels < 16 && Date.now() < until);
  await page.waitForLoadState('networkidle');
  await page.screenshot({ path: `${prefix}-study.png` });
  if (marker) {
    const [errors, answers] = [[...seen.consoleErrors], [...seen.badAnswers]]; // to what follows refusals belong
    writeFileSync(marker, '');
    await page.waitForURL('**/ohif/ended', { waitUntil: 'load' });
    seen.ended = await page.locator('main').innerText();
    seen.canvases = await page.locator('canvas').count();
    await page.screenshot({ path: `${prefix}-ended.png` });
    await page.getByRole('link', { name: 'To the study list' }).click();
    await page.getByText('No studies available').waitFor();
    [seen.consoleErrors, seen.badAnswers] = [errors, answers];
  }
  status = seen.greyLevels >= 16 ? 0 : 1;
} catch (error) {
  seen.error = error.message;
  const page = context.pages()[0];
  if (page) await page.screenshot({ path: `${prefix}-failed.png` });
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
process.stdout.write(`${JSON.stringify(seen, null, 1)}\n`);
process.exit(status);
