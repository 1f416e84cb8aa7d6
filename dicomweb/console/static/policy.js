// Verifies a proof under a trust policy (C2SP tlog-policy), as a consortium's members have it: any key of the log may
// have signed the checkpoint, another one the entry, and a quorum of witnesses must have cosigned. As verify.js, which
// does the rest; a vkey instead of a policy goes there as it is. One step more: "witnesses".
import { verify } from './verify.js';

const utf8 = (words) => new TextEncoder().encode(words);
const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('');
const base64 = (words) => Uint8Array.from(atob(words), (byte) => byte.charCodeAt(0));
const need = (held, reason) => { if (!held) throw new Error(reason); return held; };
const digest = async (data) => new Uint8Array(await crypto.subtle.digest('SHA-256', data));

// A vkey of a type (1: log, 4: cosigner), its id checked.
async function parsed(vkey, type) {
  const [, name, id, words] = need(/^([^\s+]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey), 'a vkey is name+id+key');
  const typed = base64(words);
  need(typed.length === 33 && typed[0] === type, 'a vkey of another type');
  const own = await digest(new Uint8Array([...utf8(`${name}\n`), ...typed]));
  need(hex(own).startsWith(id), 'the id of a vkey is not its own');
  return { vkey, name, id, raw: typed.slice(1), kid: hex(await digest(typed.slice(1))).slice(0, 16) };
}

async function read(text) {
  const policy = { logs: [], witnesses: new Map(), groups: new Map(), quorum: null };
  for (const line of text.split('\n')) {
    const words = line.split(/[ \t]+/).filter(Boolean);
    if (!words.length || words[0].startsWith('#')) continue;
    const [kind, first, second, ...rest] = words;
    const fresh = !policy.witnesses.has(first) && !policy.groups.has(first) && first !== 'none';
    if (kind === 'log') policy.logs.push(await parsed(first, 1));
    else if (kind === 'witness' && fresh) policy.witnesses.set(first, await parsed(second, 4));
    else if (kind === 'group' && fresh && rest.length) policy.groups.set(first, { threshold: second, members: rest });
    else if (kind === 'quorum' && policy.quorum === null) policy.quorum = first;
    else throw new Error(`the policy has a line that is none: ${kind}`);
  }
  need(policy.quorum !== null && policy.logs.length, 'the policy names no log, or no quorum');
  return policy;
}

// Which witnesses cosigned a note; a line of a known one that does not verify refuses the whole.
async function cosigners(policy, body, lines) {
  const seen = new Map();
  for (const [name, witness] of policy.witnesses) {
    const key = await crypto.subtle.importKey('raw', witness.raw, 'Ed25519', false, ['verify']);
    for (const [signer, said] of lines) {
      if (signer !== witness.name || hex(said.slice(0, 4)) !== witness.id) continue;
      const time = BigInt(`0x${hex(said.slice(4, 12))}`);
      const message = utf8(`cosignature/v1\ntime ${time}\n${body}`);
      need(said.length === 76 && (await crypto.subtle.verify('Ed25519', key, said.slice(12), message)),
        `the cosignature of ${witness.name} does not verify`);
      seen.set(name, witness.name);
    }
  }
  return seen;
}

function reached(policy, seen) {
  const witnessed = new Set(seen.keys());
  for (const [name, { threshold, members }] of policy.groups) {
    const least = threshold === 'all' ? members.length : threshold === 'any' ? 1 : Number(threshold);
    if (least >= 1 && members.filter((member) => witnessed.has(member)).length >= least) witnessed.add(name);
  }
  return policy.quorum === 'none' || witnessed.has(policy.quorum);
}

// As verify of verify.js; `trust` is a vkey or a policy's text. `facts.cosigned` are the witnesses' names.
export async function judge(proof, trust) {
  if (!/\s(log|witness|group|quorum)\s|^log\s/.test(trust.trim())) return verify(proof, trust.trim());
  if (!globalThis.crypto?.subtle) return verify(proof, trust.trim().split(/\s+/)[1] ?? '');
  let step = 'key';
  try {
    const policy = await read(trust);
    step = 'format';
    const note = proof.slice(proof.indexOf('\n\n') + 2), end = need(note.indexOf('\n\n') + 1, 'not a signed note');
    const body = note.slice(0, end), [origin] = body.split('\n');
    const tail = note.slice(end + 1).matchAll(/— (\S+) (\S+)\n/g);
    const lines = Array.from(tail, ([, name, said]) => [name, base64(said)]);
    const named = policy.logs.filter((log) => log.name === origin);
    const isOf = (log) => ([name, said]) => name === log.name && hex(said.slice(0, 4)) === log.id;
    const signing = named.filter((log) => lines.some(isOf(log)));
    step = 'checkpoint';
    need(signing.length, 'it is not signed by a log that the policy names');
    const [, extra] = need(/^extra (\S+)$/m.exec(proof), 'not a tlog-proof');
    const [, kid] = /844da201270448([0-9a-f]{16})/.exec(hex(base64(extra))) ?? [];
    const by = named.find((log) => log.kid === kid)?.raw;
    const verdicts = await Promise.all(signing.map((log) => verify(proof, log.vkey, by)));
    const verdict = verdicts.find(({ ok }) => !ok) ?? verdicts[0];
    if (['browser', 'key', 'format', 'checkpoint'].includes(verdict.step)) return verdict;
    step = 'witnesses';
    const seen = await cosigners(policy, body, lines);
    need(reached(policy, seen), `${seen.size} known witnesses cosigned it, not the quorum ${policy.quorum}`);
    verdict.facts.cosigned = [...seen.values()];
    return verdict;
  } catch (error) { return { ok: false, step, reason: error.message, facts: {} }; }
}
