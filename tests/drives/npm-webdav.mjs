// Puts a tree on the server and brings it back: node client.mjs URL USER PASSWORD TREE BACK
import { createReadStream, createWriteStream, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import assert from "node:assert/strict";
import { createClient } from "webdav";

const [url, username, password, tree, back] = process.argv.slice(2);
const client = createClient(url, { username, password });

async function putTree(from, to) {
  await client.createDirectory(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      await putTree(join(from, entry.name), `${to}/${entry.name}`);
    } else {
      assert.equal(await client.putFileContents(`${to}/${entry.name}`, readFileSync(join(from, entry.name))), true);
    }
  }
}

async function getTree(from, to) {
  mkdirSync(to, { recursive: true });
  for (const entry of await client.getDirectoryContents(from)) {
    const place = join(to, entry.basename);
    if (entry.type === "directory") {
      await getTree(entry.filename, place);
    } else {
      const content = await client.getFileContents(entry.filename);
      assert.equal(content.length, entry.size, entry.filename);
      writeFileSync(place, content);
    }
  }
}

await putTree(tree, "/tree");
assert.equal(await client.exists("/tree"), true);
assert.equal(await client.exists("/none"), false);
await client.copyFile("/tree", "/copied ü");
await client.moveFile("/tree", "/moved 漢字 #?%");
assert.equal(await client.exists("/tree"), false);
await getTree("/moved 漢字 #?%", back);
await client.deleteFile("/copied ü");

// Content that comes as a stream goes in chunks.
await pipeline(createReadStream(process.argv[1]), client.createWriteStream("/stream"));
let stat;
for (let round = 0; round < 100; round++) {
  // The stream ends before its answer has come.
  stat = await client.stat("/stream").catch(() => undefined);
  if (stat) break;
  await new Promise((resolve) => setTimeout(resolve, 50));
}
assert.equal(stat.size, readFileSync(process.argv[1]).length);
await pipeline(client.createReadStream("/stream", { range: { start: 3, end: 9 } }), createWriteStream(`${back}.part`));
assert.equal(readFileSync(`${back}.part`).length, 7);

const lock = await client.lock("/stream");
await assert.rejects(client.putFileContents("/stream", "x"), (error) => error.status === 423);
await client.unlock("/stream", lock.token);
await client.deleteFile("/stream");
const quota = await client.getQuota();
assert.ok(quota === null || quota.available > 0, JSON.stringify(quota));

const stranger = createClient(url, { username, password: "wrong" });
await assert.rejects(stranger.getDirectoryContents("/"), (error) => error.status === 401);
