// What the pages cannot do without script: verify a proof in this browser, and say a time in the reader's own zone.
for (const time of document.querySelectorAll('time[datetime]')) {
  time.title = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'long' });
}

document.documentElement.classList.add('scripted');

// On a narrow screen the filters come before what people look for, so they begin folded.
const filters = document.querySelector('.filters');
if (filters && matchMedia('(max-width: 46rem)').matches) filters.open = false;

const button = document.getElementById('verify');
if (button) {
  button.hidden = false;
  button.addEventListener('click', () => judge(button));
}

async function judge(button) {
  const verdict = document.getElementById('verdict');
  button.disabled = true;
  try {
    const { verify } = await import('./verify.js');
    const answer = await fetch(button.dataset.proof, { credentials: 'same-origin' });
    if (!answer.ok) throw new Error(`the proof could not be fetched (${answer.status})`);
    const result = await verify(await answer.text(), document.getElementById('vkey').value.trim());
    verdict.replaceChildren(...told(result));
  } catch (error) {
    verdict.replaceChildren(note(`Not verified: ${error.message}`, 'bad'));
  } finally {
    button.disabled = false;
  }
}

function told({ ok, step, reason, facts }) {
  const list = document.createElement('ol');
  for (const [name, fact] of Object.entries(facts ?? {})) {
    const item = document.createElement('li');
    item.textContent = `${name}: ${fact}`;
    list.append(item);
  }
  const words = ok ? 'Verified in this browser: the entry is under the log’s signature.' : `Not verified. The step that failed: ${step}${reason ? ` (${reason})` : ''}.`;
  return [note(words, ok ? 'good' : 'bad'), list];
}

function note(text, kind) {
  const box = document.createElement('p');
  box.className = `note ${kind}`;
  box.textContent = text;
  return box;
}
