package io.cdcplatform.connect;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.Struct;

/** Moves a value from a schema to its rewritten form. */
final class Values {
  private Values() {}

  /** The value under the rewritten schema; parts whose schema did not change are shared, not copied. */
  static Object under(Schema before, Schema after, Object value) {
    if (value == null || before == after || before == null) {
      return value;
    }
    switch (before.type()) {
      case STRUCT:
        return struct(after, (Struct) value);
      case ARRAY:
        List<Object> items = new ArrayList<>(((List<?>) value).size());
        for (Object item : (List<?>) value) {
          items.add(under(before.valueSchema(), after.valueSchema(), item));
        }
        return items;
      case MAP:
        Map<Object, Object> entries = new LinkedHashMap<>();
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
          entries.put(
              under(before.keySchema(), after.keySchema(), entry.getKey()),
              under(before.valueSchema(), after.valueSchema(), entry.getValue()));
        }
        return entries;
      default:
        return value;
    }
  }

  private static Struct struct(Schema after, Struct value) {
    Struct result = new Struct(after);
    for (Field field : value.schema().fields()) {
      // Struct.get would answer NULL with the default, which is the very loss to be avoided.
      Object part = value.getWithoutDefault(field.name());
      if (part != null) {
        Field target = after.field(field.name());
        result.put(target, under(field.schema(), target.schema(), part));
      }
    }
    return result;
  }
}
