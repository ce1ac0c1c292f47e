"""A peer on matrix-nio: commands come as JSON lines on stdin, answers and events go as JSON lines to stdout.

Membership, invitations and redactions are not here: the matrix does them with the peer's access token.
"""

import asyncio
import datetime
import importlib.metadata
import json
import logging
import os
import sys

from nio import (
    AsyncClient,
    AsyncClientConfig,
    Event,
    MegolmEvent,
    SyncResponse,
    crypto,
)

FILTER = {"room": {"timeline": {"limit": 1000}}}


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Peer:
    def __init__(self):
        self.client = None
        self.session = None
        self.directory = None
        self.syncing = None
        self.waiting = {}
        self.synced = asyncio.Event()

    def make(self, url, user, device):
        config = AsyncClientConfig(
            encryption_enabled=True,
            store_sync_tokens=True,
            pickle_key="interop",
            max_timeouts=5,
        )
        self.client = AsyncClient(
            url, user, device_id=device, store_path=self.directory, config=config
        )
        self.client.add_event_callback(self.on_event, Event)
        self.client.add_response_callback(self.on_sync, SyncResponse)

    async def start(self):
        self.syncing = asyncio.create_task(self.sync())
        await asyncio.wait_for(self.synced.wait(), 60)

    async def sync(self):
        # The store keeps the token and not the rooms: the first answer brings their state.
        while True:
            try:
                await self.client.sync_forever(
                    timeout=10_000, sync_filter=FILTER, full_state=not self.synced.is_set()
                )
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the server may be away for a while
                logging.warning("sync: %s", error)
                await asyncio.sleep(0.5)

    def head(self, room, event):
        return {"room": room, "id": event.event_id, "sender": event.sender}

    async def on_event(self, room, event):
        if event.sender == self.client.user_id:
            return
        if isinstance(event, MegolmEvent):
            self.waiting[event.event_id] = event
            head = self.head(room.room_id, event)
            say({"unreadable": {**head, "reason": "no room key"}})
            return
        self.read(room.room_id, event)

    def read(self, room, event):
        source = event.source
        if "state_key" in source:
            return
        content = source.get("content", {})
        say(
            {
                "read": {
                    **self.head(room, event),
                    "type": source.get("type"),
                    "content": content,
                    "relates": content.get("m.relates_to"),
                    "encrypted": bool(event.decrypted),
                }
            }
        )

    async def on_sync(self, _response):
        """A key may have come for what waits: nio leaves trying again to its caller."""
        for event in list(self.waiting.values()):
            try:
                read = self.client.decrypt_event(event)
            except Exception:
                continue
            del self.waiting[event.event_id]
            self.read(event.room_id, read)
        self.synced.set()

    async def until(self, what, condition):
        for _ in range(600):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise RuntimeError(f"waited for nothing: {what}")

    async def login(self, url, user, password, directory):
        self.directory = directory
        self.make(url, user, None)
        answer = await self.client.login(password, device_name="nio")
        if not hasattr(answer, "access_token"):
            raise RuntimeError(f"login: {answer}")
        self.session = {
            "url": url,
            "user": answer.user_id,
            "device": answer.device_id,
            "token": answer.access_token,
        }
        with open(os.path.join(directory, "session.json"), "w") as file:
            json.dump(self.session, file)
        await self.start()
        ed25519 = self.client.olm.account.identity_keys["ed25519"]
        return {**self.session, "ed25519": ed25519}

    async def open(self, directory, url=None):
        self.directory = directory
        with open(os.path.join(directory, "session.json")) as file:
            self.session = json.load(file)
        self.make(url or self.session["url"], self.session["user"], None)
        self.client.restore_login(
            self.session["user"], self.session["device"], self.session["token"]
        )
        await self.start()
        return dict(self.session)

    async def close(self):
        self.syncing.cancel()
        await asyncio.gather(self.syncing, return_exceptions=True)
        await self.client.close()
        return {}

    async def ready(self, room, members=(), devices=(), gone=()):
        rooms = self.client.rooms
        await self.until("an encrypted room", lambda: room in rooms and rooms[room].encrypted)
        await self.until("members", lambda: all(user in rooms[room].users for user in members))
        await self.until("members that leave", lambda: not any(user in rooms[room].users for user in gone))
        for user, device in devices:
            if device == self.session["device"]:
                continue  # nio keeps no record of itself
            store = self.client.device_store
            await self.until(f"device {device}", lambda: device in store[user])
        return {}

    async def send(self, room, type, content, txn=None):
        answer = await self.client.room_send(
            room, type, content, tx_id=txn, ignore_unverified_devices=True
        )
        if not hasattr(answer, "event_id"):
            raise RuntimeError(f"send: {answer}")
        return {"event": answer.event_id}

    async def send_file(self, room, path, msgtype, mime):
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            answer, keys = await self.client.upload(
                file, content_type=mime, filename="file", encrypt=True, filesize=size
            )
        if not hasattr(answer, "content_uri"):
            raise RuntimeError(f"upload: {answer}")
        content = {
            "msgtype": msgtype,
            "body": "file",
            "info": {"mimetype": mime, "size": size},
            "file": {**keys, "url": answer.content_uri},
        }
        return await self.send(room, "m.room.message", content)

    async def fetch_file(self, content, path):
        file = content["file"]
        answer = await self.client.download(mxc=file["url"])
        if not hasattr(answer, "body"):
            raise RuntimeError(f"download: {answer}")
        plain = crypto.attachments.decrypt_attachment(
            answer.body, file["key"]["k"], file["hashes"]["sha256"], file["iv"]
        )
        with open(path, "wb") as kept:
            kept.write(plain)
        return {}

    async def export_keys(self, path, passphrase):
        await self.client.export_keys(path, passphrase)
        return {}

    async def import_keys(self, path, passphrase):
        await self.client.import_keys(path, passphrase)
        return {}

    async def age(self, hours):
        """Time goes by: nio makes no new Olm session for one that is younger than an hour."""
        self.client.olm._unwedging_interval -= datetime.timedelta(hours=hours)
        return {}

    async def rotate(self, room):
        self.client.invalidate_outbound_session(room)
        return {}


async def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING if os.environ.get("MX_PEER_LOG") else logging.CRITICAL)
    say({"hello": {"engine": f"vodozemac {importlib.metadata.version('vodozemac')}"}})
    peer = Peer()
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        command = json.loads(line)
        number, name = command.pop("id"), command.pop("do")
        try:
            say({"answer": number, "ok": await getattr(peer, name)(**command)})
        except Exception as error:
            say({"answer": number, "error": f"{type(error).__name__} {error}"})


asyncio.run(main())
