// What the peer on matrix-js-sdk does about identities: cross-signing, verification, secret storage, key backup.

import { decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/recovery-key.js";

const RECEIVED = "crypto.verificationRequestReceived";
const PHASES = { ready: 3, cancelled: 5, done: 6 };
const COLOURS = ["none", "grey", "red"];

/** `peer` has `client`, `session`, `request` and `until`. */
export function identity(peer) {
    /** The secret storage's key, once it is known here. */
    let opened;
    /** What was asked for, by its flow id: the SDK lets go of what nobody holds. */
    const flows = new Map();
    /** What each comparison said at its start. */
    const offered = new Map();
    const crypto = () => peer.client.getCrypto();
    const { until } = peer;

    function held(request) {
        const flow = { request, verifier: undefined, ended: undefined };
        flows.set(request.transactionId, flow);
        return flow;
    }

    /** The flow, once it is in this phase. */
    async function flow(id, phase) {
        await until(`verification ${id}`, () => flows.has(id));
        const found = flows.get(id);
        await until(`verification ${id} in phase ${phase}`, () => {
            if (found.request.phase === PHASES.cancelled) throw new Error(`cancelled: ${found.request.cancellationCode}`);
            return phase === undefined || found.request.phase >= phase;
        });
        return found;
    }

    /** Whoever started it: take part. */
    function take(found, verifier) {
        if (found.verifier === verifier) return;
        found.verifier = verifier;
        found.ended = verifier.verify().then(() => undefined, (error) => error);
    }

    async function verifying(id) {
        const found = await flow(id);
        await until(`a verifier of ${id}`, () => {
            if (found.request.phase === PHASES.cancelled) throw new Error(`cancelled: ${found.request.cancellationCode}`);
            return found.request.verifier;
        });
        take(found, found.request.verifier);
        return found;
    }

    async function ended(found) {
        const error = await found.ended;
        if (error) throw error;
        await until("the end of a verification", () => found.request.phase === PHASES.done);
        // A finished one counts as under way until a sync later.
        await new Promise((resolve) => peer.client.once("sync", resolve));
        return {};
    }

    async function fresh(user) {
        await crypto().getUserDeviceInfo([user], true);
        return crypto().userHasCrossSigningKeys(user, true);
    }

    const commands = {
        /** All of an identity, a secret storage and a backup. */
        async identity_setup({ password, passphrase }) {
            const user = peer.session.user;
            const auth = { type: "m.login.password", identifier: { type: "m.id.user", user }, password };
            await crypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: (upload) => upload(auth) });
            const made = await crypto().createRecoveryKeyFromPassphrase(passphrase);
            opened = made.privateKey;
            await crypto().bootstrapSecretStorage({
                createSecretStorageKey: async () => made,
                setupNewSecretStorage: true,
                setupNewKeyBackup: true,
            });
            await fresh(user);
            return { recovery_key: made.encodedPrivateKey };
        },
        /** A new device takes the secrets out of the secret storage, and the room keys out of the backup. */
        async identity_recover({ recovery_key }) {
            opened = decodeRecoveryKey(recovery_key);
            await fresh(peer.session.user);
            await crypto().bootstrapCrossSigning({});
            await crypto().loadSessionBackupPrivateKeyFromSecretStorage();
            await crypto().checkKeyBackupAndEnable();
            const { imported, total } = await crypto().restoreKeyBackup();
            return { imported, total };
        },
        /** Who holds the backup's key, takes what is in it. */
        async restore() {
            await crypto().checkKeyBackupAndEnable();
            const { imported, total } = await crypto().restoreKeyBackup();
            return { imported, total };
        },
        async identity_status() {
            await fresh(peer.session.user);
            const { privateKeysCachedLocally: here } = await crypto().getCrossSigningStatus();
            const own = await crypto().getDeviceVerificationStatus(peer.session.user, peer.session.device);
            return {
                private_keys: here.masterKey && here.selfSigningKey && here.userSigningKey,
                cross_signed: own?.signedByOwner === true && own?.crossSigningVerified === true,
                backup_key: (await crypto().getSessionBackupPrivateKey()) !== null,
                backup_version: await crypto().getActiveSessionBackupVersion(),
                master_key: await crypto().getCrossSigningKeyId(),
            };
        },
        /** How a user and a device of his stand here. */
        async standing({ user, device }) {
            await fresh(user);
            const [whole, one] = [await crypto().getUserVerificationStatus(user), await crypto().getDeviceVerificationStatus(user, device)];
            return {
                user: whole.isCrossSigningVerified(),
                signed_by_owner: one?.signedByOwner === true,
                device: one?.crossSigningVerified === true,
            };
        },
        /** What a client shows beside a message. */
        async shield({ room, event }) {
            const info = await crypto().getEncryptionInfoForEvent(peer.client.getRoom(room).findEventById(event));
            return { colour: COLOURS[info?.shieldColour] ?? "no information", reason: info?.shieldReason ?? null };
        },
        async backed_up({ count }) {
            let version;
            // The SDK shows what it knew when it looked last.
            await until("room keys in the backup", async () => {
                const info = await peer.request("GET", "/room_keys/version");
                version = info.version;
                return info.count >= count;
            });
            return { version };
        },
        /** The SDK drops, without a word, what a device asks that it has not heard of yet. */
        async knows({ user, device }) {
            await until(`device ${device}`, async () => (await crypto().getUserDeviceInfo([user], true)).get(user)?.has(device));
            return {};
        },
        async verify_request({ user, device, room }) {
            await fresh(user);
            let request;
            if (room) request = await crypto().requestVerificationDM(user, room);
            else if (device) request = await crypto().requestDeviceVerification(user, device);
            else request = await crypto().requestOwnUserVerification();
            held(request);
            return { flow: request.transactionId };
        },
        async verify_accept({ flow: id, user }) {
            const found = await flow(id);
            await fresh(user);
            await found.request.accept();
            return {};
        },
        async verify_start({ flow: id }) {
            const found = await flow(id, PHASES.ready);
            take(found, await found.request.startVerification("m.sas.v1"));
            return {};
        },
        async verify_compare({ flow: id }) {
            const found = await verifying(id);
            await until("numbers to compare", async () => {
                if (found.verifier.hasBeenCancelled) throw await found.ended;
                return found.verifier.getShowSasCallbacks();
            });
            const { decimal, emoji } = found.verifier.getShowSasCallbacks().sas;
            return { decimals: decimal, emoji: emoji.map(([symbol]) => symbol), offered: offered.get(id) ?? null };
        },
        async verify_confirm({ flow: id }) {
            const found = flows.get(id);
            await found.verifier.getShowSasCallbacks().confirm();
            return ended(found);
        },
        async verify_mismatch({ flow: id }) {
            flows.get(id).verifier.getShowSasCallbacks().mismatch();
            return {};
        },
        async verify_cancelled({ flow: id }) {
            await flow(id).catch(() => undefined);
            const { request } = flows.get(id);
            await until("a cancellation", () => request.phase === PHASES.cancelled);
            return { code: request.cancellationCode };
        },
        async verify_show_qr({ flow: id }) {
            const found = await flow(id, PHASES.ready);
            const code = await found.request.generateQRCode();
            if (!code) throw new Error("it makes no code");
            return { code: Buffer.from(code).toString("base64") };
        },
        /** Scan what the other side shows: nothing more is to be done here. */
        async verify_scan({ flow: id, code }) {
            const found = await flow(id, PHASES.ready);
            take(found, await found.request.scanQRCode(new Uint8ClampedArray(Buffer.from(code, "base64"))));
            return {};
        },
        /** The other side says that it has scanned our code: so it is. */
        async verify_scanned({ flow: id }) {
            const found = await verifying(id);
            await until("a scan", () => found.verifier.getReciprocateQrCodeCallbacks());
            found.verifier.getReciprocateQrCodeCallbacks().confirm();
            return ended(found);
        },
        async verify_done({ flow: id }) {
            return ended(await verifying(id));
        },
    };

    return {
        commands,
        callbacks: {
            getSecretStorageKey: async ({ keys }) => (opened ? [Object.keys(keys)[0], opened] : null),
        },
        listen(client) {
            client.on(RECEIVED, (request) => flows.has(request.transactionId) || held(request));
        },
        /** A request of the SDK on its way: what a comparison offers when it starts. */
        seen(url, body) {
            if (!url.includes("/sendToDevice/m.key.verification.start/")) return;
            const messages = Object.values(JSON.parse(body).messages).flatMap((devices) => Object.values(devices));
            for (const { transaction_id: id, message_authentication_codes: macs } of messages) offered.set(id, macs);
        },
    };
}
