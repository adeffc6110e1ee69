package io.cdcplatform.connect;

import java.util.IdentityHashMap;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;

/**
 * Remembers the rewritten form of every schema met, by identity: connectors use one schema object
 * for all rows of a table until the table changes.
 *
 * <p>A connector that makes a new schema object for every record would fill it without end, so it
 * starts afresh at {@link #LIMIT}. Used by one task's thread only.
 */
final class SchemaCache {
  static final int LIMIT = 4096;

  private final Map<Schema, Schema> rewritten = new IdentityHashMap<>();

  /** The schema without defaults of optional parts; the same object when there is none. */
  Schema withoutDefaults(Schema schema) {
    if (schema == null) {
      return null;
    }
    Schema known = rewritten.get(schema);
    if (known != null) {
      return known;
    }
    if (rewritten.size() >= LIMIT) {
      rewritten.clear();
    }
    return SchemaWithoutDefaults.of(schema, rewritten);
  }

  int size() {
    return rewritten.size();
  }
}
