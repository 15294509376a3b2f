// Calls a method from a program.
import { randomUUID } from 'node:crypto';
import { ApplicationFailure, Client, Connection } from '@temporalio/client';
import type { Failure, Listed, MethodCall, MethodResult } from './wire.js';

const call: MethodCall = { instanceId: 'my temporal', method: 'list_workflows', params: { pageSize: 5 } };

// The first application failure in the cause chain.
function failureOf(error: unknown): Failure | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ApplicationFailure && cause.details?.length) return cause.details[0] as Failure;
  }
  return undefined;
}

const connection = await Connection.connect({ address: process.env.TEMPORAL_ADDRESS ?? '127.0.0.1:7233' });
const client = new Client({ connection });

// Start it, do something else, read the result.
const handle = await client.workflow.start('ExecuteMethod', {
  taskQueue: 'integrations',
  workflowId: `report-${randomUUID()}`,
  args: [call],
});
const result: MethodResult<Listed> = await handle.result();
console.log('workflow', result.statusCode, result.definition);

// Handle an error by its code.
try {
  await client.workflow.execute('ExecuteMethod', {
    taskQueue: 'integrations',
    workflowId: `report-${randomUUID()}`,
    args: [{ ...call, params: { pageSize: 'five' } }],
  });
} catch (error) {
  const failure = failureOf(error);
  if (failure?.code !== 'VALIDATION_ERROR') throw error;
  console.log('refused', failure.details.path);
}
await connection.close();
