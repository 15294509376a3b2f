// Runs the workflow once, on a worker of its own.
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import type { report } from './workflows.js';

const address = process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233';
const native = await NativeConnection.connect({ address });
const connection = await Connection.connect({ address });
const worker = await Worker.create({
  connection: native,
  taskQueue: 'reports-typescript',
  workflowsPath: fileURLToPath(new URL('./workflows.js', import.meta.url)),
});
const told = await worker.runUntil(
  new Client({ connection }).workflow.execute<typeof report>('report', {
    taskQueue: 'reports-typescript',
    workflowId: `report-${randomUUID()}`,
    args: ['my temporal'],
  }),
);
console.log(JSON.stringify(told));
await connection.close();
await native.close();
