package io.cdcplatform.connect;

import java.util.Map;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;

/** Copies a schema, turning the default of every optional part into a schema parameter. */
final class SchemaWithoutDefaults {
  /** Name of the schema parameter that carries the default, as JSON text. */
  static final String DEFAULT_PARAMETER = "cdc.default";

  private SchemaWithoutDefaults() {}

  /** Returns the argument itself when nothing in it has to change; remembers every part. */
  static Schema of(Schema schema, Map<Schema, Schema> rewritten) {
    Schema known = rewritten.get(schema);
    if (known != null) {
      return known;
    }
    boolean moved = schema.isOptional() && schema.defaultValue() != null;
    Schema result = moved || partsChange(schema, rewritten) ? copy(schema, moved, rewritten) : schema;
    rewritten.put(schema, result);
    return result;
  }

  private static boolean partsChange(Schema schema, Map<Schema, Schema> rewritten) {
    switch (schema.type()) {
      case STRUCT:
        boolean change = false;
        for (Field field : schema.fields()) {
          change |= of(field.schema(), rewritten) != field.schema();
        }
        return change;
      case ARRAY:
        return of(schema.valueSchema(), rewritten) != schema.valueSchema();
      case MAP:
        return of(schema.keySchema(), rewritten) != schema.keySchema()
            || of(schema.valueSchema(), rewritten) != schema.valueSchema();
      default:
        return false;
    }
  }

  private static Schema copy(Schema schema, boolean moved, Map<Schema, Schema> rewritten) {
    SchemaBuilder builder = emptyBuilder(schema, rewritten);
    builder.name(schema.name()).version(schema.version()).doc(schema.doc());
    if (schema.parameters() != null) {
      builder.parameters(schema.parameters());
    }
    if (schema.isOptional()) {
      builder.optional();
    }
    if (schema.type() == Schema.Type.STRUCT) {
      for (Field field : schema.fields()) {
        builder.field(field.name(), of(field.schema(), rewritten));
      }
    }
    if (moved) {
      builder.parameter(DEFAULT_PARAMETER, DefaultText.of(schema, schema.defaultValue()));
    } else if (schema.defaultValue() != null) {
      // The default of a required part stays: a NULL can never stand in its place. The copy so far
      // is a stand-in for the finished schema, which a default that is a struct must belong to.
      builder.defaultValue(Values.under(schema, builder, schema.defaultValue()));
    }
    return builder.build();
  }

  private static SchemaBuilder emptyBuilder(Schema schema, Map<Schema, Schema> rewritten) {
    switch (schema.type()) {
      case ARRAY:
        return SchemaBuilder.array(of(schema.valueSchema(), rewritten));
      case MAP:
        return SchemaBuilder.map(
            of(schema.keySchema(), rewritten), of(schema.valueSchema(), rewritten));
      default:
        return SchemaBuilder.type(schema.type());
    }
  }
}
