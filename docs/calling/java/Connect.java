// Connects an instance of the README's definition `tickets`.
import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowOptions;
import io.temporal.client.WorkflowStub;
import java.util.Map;

public class Connect {
  /**
   * How the instance stands once the credential was proved: its `status` is CONNECTED, AUTH_ERROR or, where it could not
   * be proved yet, PENDING_AUTHENTICATION. The id is a UUID of yours: keep it.
   */
  static Map<?, ?> connect(
      WorkflowClient client, String instanceId, String name, String url, String keyId, String sealed) {
    WorkflowStub owner =
        client.newUntypedWorkflowStub(
            "ConnectInstance",
            WorkflowOptions.newBuilder()
                .setTaskQueue("integrations")
                .setWorkflowId("connection:" + instanceId)
                .build());
    owner.start(
        Map.of(
            "instanceId", instanceId,
            "definition", "tickets",
            "name", name,
            "config", Map.of("url", url)));
    return owner.update(
        "submit_credentials", Map.class, Map.of("sealed", Map.of("keyId", keyId, "sealed", sealed)));
  }
}
