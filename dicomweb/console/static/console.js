// What the pages cannot do without script: verify a proof in this browser, and say a time in the reader's own zone.

// The steps of verify.js, in their order; under a policy one more.
const STEPS = new Map([
  ['browser', 'This browser knows Ed25519'],
  ['key', 'The key has its strict form'],
  ['format', 'The proof has its strict form'],
  ['checkpoint', 'The checkpoint is signed with the key'],
  ['inclusion', 'The entry is in the signed tree'],
  ['entry', 'The entry itself is signed, and strict'],
]);
const QUORUM = ['witnesses', 'Enough members or witnesses cosigned the checkpoint'];

document.documentElement.classList.add('scripted');

for (const time of document.querySelectorAll('time[datetime]')) {
  time.title = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'long' });
}

// On a narrow screen the filters come before what people look for, so they begin folded.
const filters = document.querySelector('.filters');
if (filters && matchMedia('(max-width: 46rem)').matches) filters.open = false;

// A card can be put in from its file; what is sent is the text that can be read in the field.
for (const chosen of document.querySelectorAll('input[data-into]')) {
  chosen.parentElement.hidden = false;
  chosen.addEventListener('change', async () => {
    const [file] = chosen.files;
    if (file && file.size < 16384) document.getElementById(chosen.dataset.into).value = await file.text();
  });
}

const button = document.getElementById('verify');
if (button) {
  button.hidden = false;
  button.addEventListener('click', judge);
}

async function judge() {
  const verdict = document.getElementById('verdict');
  button.disabled = true;
  try {
    const { judge: verify } = await import('./policy.js');
    const answer = await fetch(button.dataset.proof, { credentials: 'same-origin' });
    if (!answer.ok) throw new Error(`the proof could not be fetched (${answer.status})`);
    const trust = document.getElementById('vkey').value.trim();
    verdict.replaceChildren(...told(await verify(await answer.text(), trust), trust));
  } catch (error) {
    verdict.replaceChildren(element('p', 'note bad', `Not verified: ${error.message}.`));
  } finally {
    button.disabled = false;
    button.focus();
  }
}

function told({ ok, step, reason, facts }, trust) {
  const list = element('ol');
  const steps = new Map(trust.includes('\n') ? [...STEPS, QUORUM] : STEPS);
  const names = [...steps.keys()];
  const failed = ok ? names.length : names.indexOf(step);
  names.forEach((name, place) => {
    const state = place < failed ? 'held' : place === failed ? 'failed' : 'left';
    const said = { held: 'Held', failed: 'Failed', left: 'Not looked at' }[state];
    const item = element('li', state);
    const words = element('span', '', steps.get(name));
    words.prepend(element('span', 'unseen', `${said}: `));
    const more = state === 'failed' ? reason : state === 'held' ? proved(name, facts) : '';
    if (more) words.append(element('small', '', more));
    item.append(words);
    list.append(item);
  });
  const same = ok && facts.id === button.dataset.entry;
  let words = 'Verified in this browser: this entry is under the log’s signature.';
  if (!ok) words = `Not verified: ${reason}.`;
  else if (!same) words = 'The proof holds, but it is of another entry than this page.';
  return [element('p', `note ${same ? 'good' : 'bad'}`, words), list];
}

// What a step has shown, as the verifier read it from the proof alone.
function proved(step, facts) {
  if (step === 'checkpoint') return `${facts.origin}, ${facts.size} entries, root ${facts.root.slice(0, 16)}…`;
  if (step === 'inclusion') return `leaf ${facts.index}, ${facts.id.slice(0, 16)}…`;
  if (step === 'witnesses') return (facts.cosigned ?? []).join(', ');
  if (step === 'entry') return `${facts.entry.t}, ${new Date(facts.entry.ts / 1000).toISOString()}`;
  return '';
}

function element(name, kind = '', text = '') {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}
