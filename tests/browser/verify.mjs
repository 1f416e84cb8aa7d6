// Gives proofs to the verifier in a real Chromium.
//
//   node verify.mjs PAGE_URL CASES_FILE [CHROMIUM]
//
// CASES_FILE holds JSON: a list of [proof, vkey]. Prints JSON: `verdicts`, one {ok, step, reason, facts} for each;
// `without`, what the verifier says when WebCrypto lacks Ed25519 and when it is not there; `requests` that went out.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [pageUrl, casesFile, executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const cases = JSON.parse(readFileSync(casesFile, 'utf8'));
const profile = mkdtempSync(join(tmpdir(), 'cairn-chromium-'));
const seen = { verdicts: [], without: [], requests: [], errors: [] };
const AT_ONCE = 200;

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'],
});
let status = 1;
try {
  const page = context.pages()[0] ?? (await context.newPage());
  page.on('request', (request) => seen.requests.push(new URL(request.url()).pathname));
  page.on('pageerror', (error) => seen.errors.push(error.message));
  await page.goto(pageUrl, { waitUntil: 'load' });
  await page.waitForFunction(() => window.judged);
  for (let at = 0; at < cases.length; at += AT_ONCE) {
    seen.verdicts.push(...(await page.evaluate((some) => window.judged(some), cases.slice(at, at + AT_ONCE))));
  }
  await page.evaluate(() => {
    crypto.subtle.importKey = () => Promise.reject(new DOMException('Unrecognized name.', 'NotSupportedError'));
  });
  seen.without.push(...(await page.evaluate((some) => window.judged(some), cases.slice(0, 1))));
  await page.evaluate(() => Object.defineProperty(crypto, 'subtle', { value: undefined }));
  seen.without.push(...(await page.evaluate((some) => window.judged(some), cases.slice(0, 1))));
  status = 0;
} catch (error) {
  seen.errors.push(error.message);
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exitCode = status; // exit() would cut off what the pipe has not taken yet
