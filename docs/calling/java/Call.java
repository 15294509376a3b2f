// Calls a method from a program.
import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowFailedException;
import io.temporal.client.WorkflowOptions;
import io.temporal.client.WorkflowStub;
import io.temporal.failure.ApplicationFailure;
import io.temporal.serviceclient.WorkflowServiceStubs;
import io.temporal.serviceclient.WorkflowServiceStubsOptions;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;

public class Call {
  /** The first application failure in the cause chain; its type is the code. */
  static Optional<ApplicationFailure> failureOf(Throwable error) {
    for (Throwable cause = error; cause != null; cause = cause.getCause()) {
      if (cause instanceof ApplicationFailure failure) {
        return Optional.of(failure);
      }
    }
    return Optional.empty();
  }

  static WorkflowStub executeMethod(WorkflowClient client) {
    return client.newUntypedWorkflowStub(
        "ExecuteMethod",
        WorkflowOptions.newBuilder()
            .setTaskQueue("integrations")
            .setWorkflowId("report-" + UUID.randomUUID())
            .build());
  }

  public static void main(String[] arguments) {
    String address = System.getenv().getOrDefault("TEMPORAL_ADDRESS", "127.0.0.1:7233");
    WorkflowServiceStubs service =
        WorkflowServiceStubs.newServiceStubs(
            WorkflowServiceStubsOptions.newBuilder().setTarget(address).build());
    WorkflowClient client = WorkflowClient.newInstance(service);

    // Start it, do something else, read the result.
    WorkflowStub handle = executeMethod(client);
    handle.start(
        Map.of(
            "instanceId", "my temporal",
            "method", "list_workflows",
            "params", Map.of("pageSize", 5)));
    Map<?, ?> result = handle.getResult(Map.class);
    System.out.println("workflow " + result.get("statusCode") + " " + result.get("definition"));

    // Handle an error by its code.
    WorkflowStub wrong = executeMethod(client);
    wrong.start(
        Map.of(
            "instanceId", "my temporal",
            "method", "list_workflows",
            "params", Map.of("pageSize", "five")));
    try {
      wrong.getResult(Map.class);
    } catch (WorkflowFailedException error) {
      ApplicationFailure failure = failureOf(error).orElseThrow(() -> error);
      if (!failure.getType().equals("VALIDATION_ERROR")) {
        throw error;
      }
      Map<?, ?> told = failure.getDetails().get(Map.class);
      System.out.println("refused " + ((Map<?, ?>) told.get("details")).get("path"));
    }
    service.shutdown();
  }
}
