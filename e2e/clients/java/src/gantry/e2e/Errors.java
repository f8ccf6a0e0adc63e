package gantry.e2e;

import org.apache.rocketmq.client.exception.MQBrokerException;

/** Names of failures for the history: the innermost class, with the broker's code where it answered. */
final class Errors {
    private Errors() {}

    static String name(Throwable error) {
        Throwable deepest = error;
        while (deepest.getCause() != null && deepest.getCause() != deepest) {
            if (deepest instanceof MQBrokerException) {
                break;
            }
            deepest = deepest.getCause();
        }
        if (deepest instanceof MQBrokerException) {
            return "MQBrokerException:" + ((MQBrokerException) deepest).getResponseCode();
        }
        return deepest.getClass().getSimpleName();
    }
}
