package gantry.e2e;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Collections;
import java.util.Map;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** createTopic() took three arguments in 4.9 and takes a map of attributes in 5.x: one source, found by reflection. */
final class TopicCreation {
    private TopicCreation() {}

    static void create(DefaultMQProducer producer, String template, String topic, int queues) throws Exception {
        try {
            Method since5 = find(String.class, String.class, int.class, Map.class);
            if (since5 != null) {
                since5.invoke(producer, template, topic, queues, Collections.emptyMap());
            } else {
                find(String.class, String.class, int.class).invoke(producer, template, topic, queues);
            }
        } catch (InvocationTargetException e) {
            throw e.getCause() instanceof Exception ? (Exception) e.getCause() : e;
        }
    }

    private static Method find(Class<?>... parameters) {
        try {
            return DefaultMQProducer.class.getMethod("createTopic", parameters);
        } catch (NoSuchMethodException e) {
            return null;
        }
    }
}
