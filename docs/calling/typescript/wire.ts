// The shapes; `integrations schema MethodCall` and its like print them as JSON Schemas.
export interface MethodCall {
  instanceId: string;
  method?: string;
  params?: Record<string, unknown>;
  scope?: string;
  idempotencyKey?: string;
  deadlineMs?: number;
}

export interface MethodResult<Data> {
  data: Data;
  statusCode: number;
  attempts: number;
  definition: string;
}

export interface Failure {
  code: string;
  message: string;
  retryable: boolean;
  details: { path?: string };
}

export interface Listed {
  executions: unknown[];
}
