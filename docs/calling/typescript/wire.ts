// The shapes; `integrations schema MethodCall` and its like print them as JSON Schemas.
export interface MethodCall {
  instanceId: string;
  method?: string;
  params?: Record<string, unknown>;
  scope?: string;
  idempotencyKey?: string;
  deadlineMs?: number;
  onAuthError?: 'fail' | 'wait';
  waitTimeoutMs?: number;
  cache?: 'use' | 'bypass' | 'refresh';
  largeResult?: 'fail' | 'reference';
  page?: unknown;
  correlationId?: string;
}

export interface MethodResult<Data> {
  data: Data;
  statusCode: number;
  cached: boolean;
  cacheAgeMs?: number;
  attempts: number;
  durationMs: number;
  definition: string;
  definitionVersion: string;
  errors?: unknown[];
  nextPage?: unknown;
  resultRef?: { id: string; url: string; sha256: string; bytes: number; expiresAt: string };
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

export interface Sealed {
  keyId: string;
  sealed: string;
}

// What the query `status` and the updates of `ConnectInstance` answer; docs/instances.md has the rest of it.
export interface Instance {
  id: string;
  name: string;
  status:
    | 'PENDING_CONFIGURATION'
    | 'PENDING_AUTHENTICATION'
    | 'CONNECTED'
    | 'DISCONNECTED'
    | 'AUTH_ERROR'
    | 'CONFIG_ERROR';
  error?: { code: string; message: string; details?: unknown };
  authorizationUrl?: string;
  lastConnectedAt?: string;
}
