// A peer on matrix-js-sdk: commands come as JSON lines on stdin, answers and events go as JSON lines to stdout.
//
// Its IndexedDB is fake-indexeddb, which lives in memory: `close` writes it into the peer's directory, `open` reads it back.
// Membership, invitations and redactions are not here: the matrix does them with the peer's access token.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { deserialize, serialize } from "node:v8";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
for (const level of ["log", "info", "warn", "error", "debug", "trace"]) {
    console[level] = (...words) => {
        if (process.env.MX_PEER_LOG) process.stderr.write(`${words.map(String).join(" ")}\n`);
    };
}

// Only now: the SDK takes the console as it finds it.
await import("fake-indexeddb/auto");
const sdk = await import("matrix-js-sdk");
const wasm = await import("@matrix-org/matrix-sdk-crypto-wasm");
const { identity } = await import("./js_identity.mjs");
await wasm.initAsync();

let client;
let directory;
let session;
const told = new Map();

const promised = (request) =>
    new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });

/** Everything that IndexedDB holds, as plain values. */
async function dumped() {
    const databases = [];
    for (const { name, version } of await indexedDB.databases()) {
        const database = await promised(indexedDB.open(name, version));
        const stores = [];
        for (const store of database.objectStoreNames) {
            const from = database.transaction(store, "readonly").objectStore(store);
            const indexes = [...from.indexNames].map((index) => {
                const { keyPath, unique, multiEntry } = from.index(index);
                return { name: index, keyPath, unique, multiEntry };
            });
            const [keys, values] = [await promised(from.getAllKeys()), await promised(from.getAll())];
            stores.push({ name: store, keyPath: from.keyPath, autoIncrement: from.autoIncrement, indexes, keys, values });
        }
        database.close();
        databases.push({ name, version, stores });
    }
    return databases;
}

async function restore(databases) {
    for (const { name, version, stores } of databases) {
        const opening = indexedDB.open(name, version);
        opening.onupgradeneeded = () => {
            for (const { name: store, keyPath, autoIncrement, indexes, keys, values } of stores) {
                const into = opening.result.createObjectStore(store, { keyPath, autoIncrement });
                for (const { name: index, keyPath: path, unique, multiEntry } of indexes) {
                    into.createIndex(index, path, { unique, multiEntry });
                }
                keys.forEach((key, index) => (keyPath === null ? into.put(values[index], key) : into.put(values[index])));
            }
        };
        (await promised(opening)).close();
    }
}

const file = (name) => join(directory, name);

async function request(method, path, body) {
    const answer = await fetch(`${session.url}/_matrix/client/v3${path}`, {
        method,
        headers: session.token ? { authorization: `Bearer ${session.token}` } : {},
        body: JSON.stringify(body),
    });
    const json = await answer.json();
    if (!answer.ok) throw new Error(`${method} ${path.split("?")[0]}: ${answer.status} ${json.errcode}`);
    return json;
}

/** Tell an event once when it is read, and once before when it is not. */
async function report(event) {
    if (event.isState() || event.status !== null || event.getSender() === session.user) return;
    const encrypted = event.getWireType() === "m.room.encrypted";
    // The SDK decrypts what it thinks somebody looks at.
    if (encrypted) await client.decryptEventIfNeeded(event);
    const failed = event.isDecryptionFailure();
    if (encrypted && !failed && event.getType() === "m.room.encrypted") {
        if (!event.isRedacted()) return;
    }
    const now = failed ? "unreadable" : "read";
    const before = told.get(event.getId());
    if (before === now || before === "read") return;
    told.set(event.getId(), now);
    const head = { room: event.getRoomId(), id: event.getId(), sender: event.getSender() };
    if (failed) {
        say({ unreadable: { ...head, reason: event.decryptionFailureReason } });
    } else {
        say({ read: { ...head, type: event.getType(), content: event.getOriginalContent(), relates: event.getWireContent()["m.relates_to"] ?? null, encrypted } });
    }
}

async function start() {
    const name = `mx-${session.device}`;
    const store = new sdk.IndexedDBStore({ indexedDB: globalThis.indexedDB, dbName: name });
    client = sdk.createClient({
        baseUrl: session.url,
        userId: session.user,
        deviceId: session.device,
        accessToken: session.token,
        store,
        timelineSupport: true,
        cryptoCallbacks: identities.callbacks,
        fetchFn: (url, options) => {
            identities.seen(String(url), options?.body);
            return fetch(url, options);
        },
    });
    identities.listen(client);
    await store.startup();
    await client.initRustCrypto({ cryptoDatabasePrefix: name });
    client.on("Room.timeline", (event, _room, toStart) => {
        if (!toStart) void report(event);
    });
    client.on("Event.decrypted", (event) => void report(event));
    const ready = new Promise((resolve) => {
        client.on("sync", (state) => (state === "PREPARED" || state === "SYNCING") && resolve());
    });
    // By default, a sync holds ten events a room, and js-sdk 43 takes a gap before them for none when its own event is among
    // them: it never sees what others said in it.
    const filter = new sdk.Filter(session.user);
    filter.setTimelineLimit(1000);
    await client.startClient({ initialSyncLimit: 1000, filter, pollTimeout: 10_000, threadSupport: false });
    await ready;
}

async function until(what, condition) {
    for (let left = 600; left > 0; left -= 1) {
        if (await condition()) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`waited for nothing: ${what}`);
}

const identities = identity({
    get client() {
        return client;
    },
    get session() {
        return session;
    },
    request,
    until,
});

/** The SDK knows that a room is encrypted a moment before it can encrypt for it, and fails in between. */
const configured = (room) => until("a room that it can encrypt for", () => client.getCrypto().roomEncryptors[room]);

const media = (uri) => uri.replace("mxc://", "");

const commands = {
    ...identities.commands,
    async login({ url, user, password, directory: where }) {
        directory = where;
        session = { url };
        const login = { type: "m.login.password", identifier: { type: "m.id.user", user }, password };
        const answer = await request("POST", "/login", login);
        session = { url, token: answer.access_token, user: answer.user_id, device: answer.device_id };
        await start();
        const { ed25519 } = await client.getCrypto().getOwnDeviceKeys();
        return { user: session.user, device: session.device, token: session.token, ed25519 };
    },
    async open({ directory: where, url }) {
        directory = where;
        const { told: before, ...kept } = JSON.parse(readFileSync(file("session.json"), "utf8"));
        session = { ...kept, url: url ?? kept.url };
        // The SDK shows what its store holds of the timelines again.
        for (const [id, how] of before) told.set(id, how);
        if (!existsSync(file("indexeddb"))) throw new Error("it was never closed, and has nothing to open");
        await restore(deserialize(readFileSync(file("indexeddb"))));
        await start();
        return { user: session.user, device: session.device, token: session.token };
    },
    async close() {
        client.stopClient();
        await client.store.save(true);
        await new Promise((resolve) => setTimeout(resolve, 300));
        writeFileSync(file("session.json"), JSON.stringify({ ...session, told: [...told] }));
        writeFileSync(file("indexeddb"), serialize(await dumped()));
        return {};
    },
    /** Wait until the room is known as encrypted, with these members and these devices, and no other devices of theirs. */
    async ready({ room, members = [], devices = [], gone = [], visibility }) {
        await configured(room);
        await until("the history's visibility", () => !visibility || client.getRoom(room).getHistoryVisibility() === visibility);
        const present = () => client.getRoom(room).getMembers().filter((one) => one.membership === "join" || one.membership === "invite");
        await until("members", () => members.every((user) => present().some((one) => one.userId === user)));
        await until("members that leave", () => gone.every((user) => !present().some((one) => one.userId === user)));
        for (const [user, device] of devices) {
            const crypto = client.getCrypto();
            await until(`device ${device}`, async () => (await crypto.getUserDeviceInfo([user])).get(user)?.has(device));
        }
        return {};
    },
    /** The SDK takes a history only of an invitation that it knows. */
    async join({ room }) {
        await until("an invitation", () => client.getRoom(room)?.getMyMembership() === "invite");
        await client.joinRoom(room);
        return {};
    },
    /** The SDK gives the history with each invitation where it may, and does not say whether it did. */
    async invite_with_history({ room, user }) {
        await client.invite(room, user);
        return {};
    },
    async share_history({ room, user }) {
        await client.getCrypto().shareRoomHistoryWithUser(room, user);
        return {};
    },
    async send({ room, type, content, txn }) {
        await configured(room);
        const answer = await client.sendEvent(room, null, type, content, txn);
        return { event: answer.event_id };
    },
    async send_file({ room, path, msgtype, mime }) {
        const bytes = readFileSync(path);
        const sealed = wasm.Attachment.encrypt(new Uint8Array(bytes));
        const info = JSON.parse(sealed.mediaEncryptionInfo);
        const { content_uri: url } = await client.uploadContent(sealed.encryptedData, { type: "application/octet-stream", includeFilename: false });
        const content = { msgtype, body: "file", info: { mimetype: mime, size: bytes.length }, file: { ...info, url } };
        await configured(room);
        const answer = await client.sendEvent(room, "m.room.message", content);
        return { event: answer.event_id };
    },
    /** Fetch and decrypt a file, and keep it under this path. */
    async fetch_file({ content, path }) {
        const answer = await fetch(`${session.url}/_matrix/client/v1/media/download/${media(content.file.url)}`, {
            headers: { authorization: `Bearer ${session.token}` },
        });
        if (!answer.ok) throw new Error(`download: ${answer.status}`);
        const sealed = new wasm.EncryptedAttachment(new Uint8Array(await answer.arrayBuffer()), JSON.stringify(content.file));
        writeFileSync(path, wasm.Attachment.decrypt(sealed));
        return {};
    },
    async export_keys({ path, passphrase }) {
        const keys = await client.getCrypto().exportRoomKeysAsJson();
        writeFileSync(path, wasm.OlmMachine.encryptExportedRoomKeys(keys, passphrase, 10_000));
        return { keys: JSON.parse(keys).length };
    },
    async import_keys({ path, passphrase }) {
        const keys = wasm.OlmMachine.decryptExportedRoomKeys(readFileSync(path, "utf8"), passphrase);
        await client.getCrypto().importRoomKeysAsJson(keys);
        return { keys: JSON.parse(keys).length };
    },
    /** Time goes by: an implementation makes no new Olm session for one that is younger than an hour. */
    async age({ hours }) {
        const now = Date.now;
        Date.now = () => now() + hours * 3_600_000;
        return {};
    },
    async rotate({ room }) {
        await client.getCrypto().forceDiscardSession(room);
        return {};
    },
};

const engine = wasm.getVersions();
say({ hello: { engine: `matrix-sdk-crypto ${engine.matrix_sdk_crypto}, vodozemac ${engine.vodozemac}` } });
for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
        say({ answer: command.id, ok: await commands[command.do](command) });
    } catch (error) {
        say({ answer: command.id, error: `${error?.errcode ?? ""} ${error?.message ?? error}`.trim() });
    }
}
process.exit(0);
