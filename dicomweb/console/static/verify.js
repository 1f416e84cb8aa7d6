// Verifies a proof (C2SP tlog-proof) by its text and the log's vkey alone with WebCrypto: the steps of ledger/proof.py.
// verify(proof, vkey) never rejects; of {ok, step, reason, facts} `step` is where it failed ("browser": this one cannot
// judge) or "done", `facts` what was proved before. `by`: the entry's raw key when it is not the log's (policy.js).
const PROOF = /^c2sp\.org\/tlog-proof@v1\nextra (\S+)\nindex (0|[1-9]\d{0,18})\n((?:\S{44}\n)*)\n([^]*)$/;
const NOTE = /^((?:[^\0-\x1f]+\n){3,})\n((?:— [^\s+\0-\x1f\x85]+ \S+\n)+)$/;
const need = (held, reason) => { if (!held) throw new Error(reason); return held; };
const join = (...parts) => new Uint8Array(parts.flatMap((part) => Array.from(part)));
const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, '0')).join('');
const utf8 = (words) => new TextEncoder().encode(words);
const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest('SHA-256', join(...parts)));
const base64 = (words) => // RFC 4648 section 4, the one spelling of its bytes
  Uint8Array.from(need(btoa(atob(words)) === words, 'not strict base64') && atob(words), (byte) => byte.charCodeAt(0));
const decode = (data, most = 16384) => { // strict CBOR: integers become BigInt, byte strings Uint8Array, maps Map
  let at = 0;
  const take = (count) => need(count <= data.length - at, 'CBOR ends early') && data.slice(at, (at += Number(count)));
  const item = (depth) => {
    const [initial] = take(1), major = initial >> 5, info = initial & 31, starts = [];
    if (major === 7) return need([20, 21, 22].includes(info), 'a float or the like') && [false, true, null][info - 20];
    need(major !== 6 && info < 28, 'a tag, an indefinite length or a reserved value');
    const size = info < 24 ? BigInt(info) : BigInt(`0x${hex(take(1 << (info - 24)))}`);
    need(info < 24 || size >= (info === 24 ? 24n : 1n << BigInt(4 << (info - 24))), 'a number not at its shortest');
    if (major < 2) return major ? -1n - size : size;
    if (major === 2) return take(size);
    if (major === 3) return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(take(size));
    need(depth < 16 && size <= data.length - at, 'CBOR nested too deep, or ends early');
    const items = Array.from({ length: Number(size) * (major - 3) }, () => starts.push(at) && item(depth + 1));
    if (major === 4) return items;
    const keys = items.map((_, n) => hex(data.slice(starts[n], starts[n + 1]))).filter((_, n) => n % 2 === 0);
    const ordered = keys.every((key, n) => typeof items[2 * n] === 'string' && (n === 0 || keys[n - 1] < key));
    return need(ordered, 'map keys out of order') && new Map(keys.map((_, n) => items.slice(2 * n, 2 * n + 2)));
  };
  const value = need(data.length <= most, 'CBOR too long') && item(0);
  return need(at === data.length && value, 'bytes after the CBOR value');
};
const plain = (value) => JSON.parse(JSON.stringify(value, (_, item) => item instanceof Map ? Object.fromEntries(item)
  : item instanceof Uint8Array ? hex(item) : typeof item === 'bigint' ? Number(item) : item));
const bytes = (size) => (value) => value instanceof Uint8Array && [undefined, value.length].includes(size);
const int = (value) => typeof value === 'bigint', uint = (value) => int(value) && value >= 0n && value < 1n << 63n;
const text = (value) => typeof value === 'string' && [...value].length <= 64;
const among = (...all) => (value) => all.includes(value);
const hashes = (value) => Array.isArray(value) && value.every(bytes(32));
const map = (must, may = {}) => (value) => value instanceof Map && Object.keys(must).every((key) => value.has(key))
  && [...value].every(([key, item]) => new Map(Object.entries({ ...must, ...may })).get(key)?.(item));
const EXTRA = map({ e: bytes() }, { r: map({ i: int, l: bytes(32), n: int, p: hashes }, { b: bytes() }) });
const COSE = (value) => value.length === 4 && [bytes(13), map({}), bytes(), bytes(64)].every((is, n) => is(value[n]));
const RECORD = map({ b: (value) => value instanceof Map, s: bytes(16), t: text, u: uint });
const WHO = map({ i: bytes(16), k: among(0n, 1n, 2n, 3n) }, { a: bytes(16), r: (value) => value && text(value) });
const ENTRY = map({ n: bytes(16), p: bytes(32), q: uint, t: text, v: among(1n), ac: among(...'CRUDE'), lg: bytes(8),
  oc: among(0n, 4n, 8n, 12n), pu: text, rr: bytes(32), ts: uint, who: WHO },
{ sub: map({ s: bytes(16) }), obj: map({ h: bytes(32) }), bd: (value) => value instanceof Map && value.size,
  ref: (value) => hashes(value) && value.length });
const included = async (leaf, index, size, path, root) => { // RFC 9162 section 2.1.3.2, level by level
  let [position, last, hash, rest] = [index, size - 1n, need(index >= 0n && index < size, 'no leaf') && leaf, path];
  for (; last; position >>= 1n, last >>= 1n) {
    if (!(position & 1n) && position === last) continue; // the last of an odd level moves up alone
    const sibling = need(rest[0], 'the inclusion proof is too short');
    hash = position & 1n ? await sha256([1], sibling, hash) : await sha256([1], hash, sibling); rest = rest.slice(1);
  }
  need(!rest.length && hex(hash) === hex(root), 'the inclusion proof does not lead to the root');
};
export const verify = async (proof, vkey, by) => {
  let step = 'key'; const facts = {}, pass = (next, shown = {}) => Object.assign(facts, plain(shown)) && (step = next);
  try {
    const [, name, id, words] = need(/^([^\s+]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey.trim()), 'a vkey is name+id+key');
    const typed = base64(words), raw = typed.slice(1);
    need(typed.length === 33 && typed[0] === 1, 'not an Ed25519 vkey') && pass('browser');
    const load = (one) => globalThis.crypto?.subtle?.importKey('raw', one, 'Ed25519', false, ['verify']);
    const [key, signer] = await Promise.all([load(raw), load(by ?? raw)]).catch(() => []);
    need(key, 'no Ed25519 in WebCrypto: it takes https, and Chrome 137, Firefox 129 or Safari 17') && pass('key');
    const signed = (one, signature, ...data) => crypto.subtle.verify('Ed25519', one, signature, join(...data));
    need(hex(await sha256(utf8(`${name}\n`), typed)).startsWith(id), 'the key id is not its own') && pass('format');
    const [, extra, index, lines, note] = need(PROOF.exec(proof), 'not a tlog-proof of version 1');
    const path = lines.split('\n').slice(0, -1).map(base64), held = decode(base64(extra), 65536);
    need(hashes(path) && EXTRA(held) && proof.length <= 524288 && note.length <= 262144, 'bad') && pass('checkpoint');
    const [, body, tail] = need(NOTE.exec(note), 'not a signed note'), [origin, size, root] = body.split('\n');
    const all = Array.from(tail.matchAll(/— (\S+) (\S+)\n/g), ([, signer, said]) => [signer, base64(said)]);
    const own = all.filter(([signer, said]) => signer === name && hex(said.slice(0, 4)) === id);
    const checks = await Promise.all(own.map(([, said]) => signed(key, said.slice(4), utf8(body))));
    need(own.length && checks.every(Boolean) && all.every(([, said]) => said.length > 4), `not signed by ${name}`);
    need(origin === name && /^(0|[1-9]\d{0,18})$/.test(size) && bytes(32)(base64(root)), 'no head of this log');
    pass('inclusion', { origin, size: BigInt(size), root: base64(root) });
    const envelope = held.get('e'), record = held.get('r'), leaf = await sha256([0], envelope);
    await included(leaf, BigInt(index), BigInt(size), path, base64(root));
    pass('entry', { index: BigInt(index), id: leaf });
    const [head, , payload, signature] = need(COSE(decode(envelope)) && decode(envelope), 'not a COSE_Sign1');
    need(hex(head) === `a201270448${hex(await sha256(by ?? raw)).slice(0, 16)}`, 'the envelope names another key');
    const covered = [[0x84, 0x6a], utf8('Signature1'), envelope.slice(1, 15), [0x40], envelope.slice(16, -66)];
    need(await signed(signer, signature, ...covered), 'the signature of the entry does not verify');
    const entry = need(ENTRY(decode(payload)) && decode(payload), 'not an entry');
    pass(record ? 'batch' : 'done', { entry });
    if (record) {
      const [i, l, n, p, b] = [...'ilnpb'].map((field) => record.get(field));
      await included(l, i, n, p, entry.get('rr'));
      pass('record', { leaf: l, position: i, count: n });
      need(!b || (hex(await sha256([0], b)) === hex(l) && RECORD(decode(b))), 'the record is not its leaf');
      pass('done', b && { record: decode(b) });
    }
    return { ok: true, step, reason: '', facts };
  } catch (error) { return { ok: false, step, reason: error.message, facts }; }
};
