//! Serializes structs as tuples, so that the Avro writer does not look up each field by its name.
//!
//! The Avro library looks up every field of a struct by its name in a tree, and then checks a hash map for fields that came too
//! early. For a tuple it writes one field after the other. Our records have their fields in the order of their schemas (the tests of
//! this crate compare every record with its schema), so [`InOrder`] serializes them as tuples of the same name and length. The bytes
//! are the same, in less than half the time.

use serde::{
    Serialize, Serializer,
    ser::{
        Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// Wraps a value or a serializer, and serializes structs as tuples.
pub(super) struct InOrder<T>(pub(super) T);

impl<T: Serialize + ?Sized> Serialize for InOrder<&T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(InOrder(serializer))
    }
}

/// Forwards values without parts unchanged.
macro_rules! forward {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for InOrder<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = InOrder<S::SerializeSeq>;
    type SerializeTuple = InOrder<S::SerializeTuple>;
    type SerializeTupleStruct = InOrder<S::SerializeTupleStruct>;
    type SerializeTupleVariant = InOrder<S::SerializeTupleVariant>;
    type SerializeMap = InOrder<S::SerializeMap>;
    type SerializeStruct = InOrder<S::SerializeTupleStruct>;
    type SerializeStructVariant = InOrder<S::SerializeStructVariant>;

    forward! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64) serialize_unit_struct(&'static str)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&InOrder(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(self, name: &'static str, at: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, at, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &InOrder(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, at, variant, &InOrder(value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(len).map(InOrder)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(len).map(InOrder)
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(InOrder)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, at, variant, len).map(InOrder)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(len).map(InOrder)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(InOrder)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        at: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, at, variant, len).map(InOrder)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// Wraps each part of a compound value in [`InOrder`].
macro_rules! parts {
    ($($of:ident::$method:ident)*) => {
        $(impl<S: $of> $of for InOrder<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.0.$method(&InOrder(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        })*
    };
}

parts! {
    SerializeSeq::serialize_element SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field SerializeTupleVariant::serialize_field
}

impl<S: SerializeMap> SerializeMap for InOrder<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(&InOrder(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&InOrder(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

impl<S: SerializeTupleStruct> SerializeStruct for InOrder<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(&InOrder(value))
    }

    /// A field of a tuple cannot be left out.
    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        Err(S::Error::custom(format!("the field {name} is left out")))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

impl<S: SerializeStructVariant> SerializeStructVariant for InOrder<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(name, &InOrder(value))
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        self.0.skip_field(name)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Inner {
        c: u8,
    }

    #[derive(Serialize)]
    struct Outer {
        a: Option<Inner>,
        b: Vec<Inner>,
        m: BTreeMap<&'static str, Inner>,
        #[serde(skip_serializing_if = "Option::is_none")]
        optional: Option<u8>,
    }

    fn json(value: &Outer) -> Result<String, serde_json::Error> {
        serde_json::to_string(&InOrder(value))
    }

    fn outer(optional: Option<u8>) -> Outer {
        Outer { a: Some(Inner { c: 1 }), b: vec![Inner { c: 2 }], m: [("k", Inner { c: 3 })].into(), optional }
    }

    #[test]
    fn structs_become_tuples_at_every_depth() {
        assert_eq!(json(&outer(Some(4))).unwrap(), r#"[[1],[[2]],{"k":[3]},4]"#);
    }

    #[test]
    fn a_field_that_is_left_out_is_an_error() {
        let error = json(&outer(None)).unwrap_err().to_string();
        assert!(error.contains("optional"), "{error}");
    }
}
