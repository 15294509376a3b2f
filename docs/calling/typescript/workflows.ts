// A workflow of yours that calls methods by name.
import { ActivityFailure, ApplicationFailure, executeChild, proxyActivities } from '@temporalio/workflow';
import type { Failure, Listed, MethodCall, MethodResult } from './wire.js';

interface Methods {
  'temporal.list_workflows'(call: MethodCall): Promise<MethodResult<Listed>>;
}

const methods = proxyActivities<Methods>({
  taskQueue: 'integrations',
  startToCloseTimeout: '45s',
  scheduleToCloseTimeout: '5m',
  heartbeatTimeout: '10s',
});

export async function report(instanceId: string): Promise<{ statusCode: number; refused?: string }> {
  const call: MethodCall = { instanceId, method: 'list_workflows', params: { pageSize: 5 } };

  // As a child: throttles and outages are waited out until `deadlineMs`.
  const result: MethodResult<Listed> = await executeChild('ExecuteMethod', {
    taskQueue: 'integrations',
    parentClosePolicy: 'REQUEST_CANCEL',
    args: [call],
  });

  // As an activity of this workflow: one hop less, and throttles spend its attempts.
  let refused: string | undefined;
  try {
    await methods['temporal.list_workflows']({ ...call, params: { pageSize: 'five' } });
  } catch (error) {
    const cause = error instanceof ActivityFailure ? error.cause : undefined;
    if (!(cause instanceof ApplicationFailure) || cause.type !== 'VALIDATION_ERROR') throw error;
    refused = (cause.details?.[0] as Failure).details.path;
  }
  return { statusCode: result.statusCode, refused };
}
