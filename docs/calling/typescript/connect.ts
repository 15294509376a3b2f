// Connects an instance of the README's definition `tickets` with an API key, and calls it.
import { randomUUID } from 'node:crypto';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';
import { CancelledFailure, Client, Connection, WorkflowFailedError } from '@temporalio/client';
import type { Instance, MethodCall, MethodResult, Sealed } from './wire.js';

const gateway = process.env.GATEWAY ?? 'http://127.0.0.1:8700';
const url = process.env.TICKETS_URL ?? 'https://api.example.com';
const apiKey = { key: process.env.TICKETS_KEY ?? '', headerOrParam: 'X-API-Key', inHeader: true };

// Sealed for one instance: nobody but a worker can open it, and for no other instance.
async function seal(instanceId: string, secret: object): Promise<Sealed> {
  const { keyId, publicKey } = await (await fetch(`${gateway}/v1/seal-key`)).json();
  const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
  const { enc, ct } = await suite.seal(
    {
      recipientPublicKey: await suite.kem.deserializePublicKey(Buffer.from(publicKey, 'base64')),
      info: Buffer.from(`integration-service/v1/${instanceId}`),
    },
    Buffer.from(JSON.stringify(secret)),
  );
  return { keyId, sealed: Buffer.concat([Buffer.from(enc), Buffer.from(ct)]).toString('base64') };
}

const connection = await Connection.connect({ address: process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233' });
const client = new Client({ connection });

// The id is yours: keep it. The workflow lives as long as the instance does.
const instanceId = randomUUID();
const owner = await client.workflow.start('ConnectInstance', {
  taskQueue: 'integrations',
  workflowId: `connection:${instanceId}`,
  args: [{ instanceId, definition: 'tickets', name: `help desk ${instanceId.slice(0, 8)}`, config: { url } }],
});

// The update waits for the start, proves the credential and answers how the instance stands then.
const sealed = await seal(instanceId, { type: 'api_key', apiKey });
const instance: Instance = await owner.executeUpdate('submit_credentials', { args: [{ sealed }] });
console.log(instance.status, instance.error?.message ?? '');

if (instance.status === 'CONNECTED') {
  const call = (more: Omit<MethodCall, 'instanceId'>) =>
    client.workflow.start('ExecuteMethod', {
      taskQueue: 'integrations',
      workflowId: `ticket-${randomUUID()}`,
      args: [{ instanceId, ...more }],
    });

  // A result over 1 MiB comes as a reference.
  const asked = await call({ method: 'who_am_i', largeResult: 'reference' });
  const result: MethodResult<object> = await asked.result();
  let account = result.data;
  if (result.resultRef) {
    const headers = { authorization: `Bearer ${process.env.GATEWAY_TOKEN}` };
    account = await (await fetch(result.resultRef.url, { headers })).json();
  }
  console.log('account', Object.keys(account));

  // Nobody wants it any more.
  const unwanted = await call({ method: 'create_ticket', params: { project: 'ops', title: 'Printer on fire' } });
  await unwanted.cancel();
  try {
    await unwanted.result();
  } catch (error) {
    if (!(error instanceof WorkflowFailedError && error.cause instanceof CancelledFailure)) throw error;
    console.log('cancelled');
  }
}
await connection.close();
