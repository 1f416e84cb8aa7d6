// What a page must not do: write errors to its console, get refusals, break its content security policy.

// Notes it from now on in `seen`: consoleErrors, badAnswers and breaches.
export async function watch(page, seen) {
  page.on('console', (message) => {
    if (message.type() === 'error') seen.consoleErrors.push(message.text());
  });
  page.on('pageerror', (error) => seen.consoleErrors.push(`uncaught: ${error.message}`));
  page.on('response', (response) => {
    if (response.status() >= 400) seen.badAnswers.push(`${response.status()} ${response.url()}`);
  });
  await page.exposeFunction('reportBreach', (what) => seen.breaches.push(what));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => window.reportBreach(`${event.violatedDirective} ${event.blockedURI}`));
  });
}
