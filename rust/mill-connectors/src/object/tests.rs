use std::path::Path;

use super::*;

#[test]
fn urls_name_a_bucket_and_a_key() {
    let place = Place::of(Path::new("s3://bucket/a/b c.csv")).unwrap();
    assert_eq!((place.bucket.as_str(), place.key.as_str(), place.root().as_str()), ("bucket", "a/b c.csv", "s3://bucket"));
    assert_eq!(Place::of(Path::new("https://host:80/a%20b.csv")).unwrap().key, "a b.csv");
    assert!(is_object(Path::new("gs://b/k")) && !is_object(Path::new("/s3:/b")) && !is_object(Path::new("ftp://b/k")));
    for (url, said) in [("s3:///k", "no bucket"), ("http:///k", "no host"), ("http://h/k?secret", "query"), ("http://u:hunter2@h/k", "password")] {
        let error = Place::of(Path::new(url)).unwrap_err();
        assert!(error.message().contains(said) && !error.message().contains("hunter2"), "{error}");
    }
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_name() {
    let error = configure("", [("aws_acess_key_id".to_owned(), "hunter2".to_owned())]).unwrap_err();
    assert!(error.message().contains("\"aws_access_key_id\"") && !error.message().contains("hunter2"), "{error}");
    let error = configure("", [("aws_bucket".to_owned(), "b".to_owned())]).unwrap_err();
    assert!(error.message().contains("part of the URL"), "{error}");
}

#[test]
fn what_a_url_names_is_known_without_the_store() {
    for (entry, is_recursive, path, is) in [
        ("s3://b/in/*.csv", false, "s3://b/in/x.csv", true),
        ("s3://b/in/*.csv", false, "s3://b/in/deep/x.csv", false),
        ("s3://b/in/", false, "s3://b/in/x.csv", true),
        ("s3://b/in", false, "s3://b/in/x.csv", true),
        ("s3://b/in/", false, "s3://b/in/deep/x.csv", false),
        ("s3://b/in/", true, "s3://b/in/deep/x.csv", true),
        ("s3://b/in/", true, "s3://b/in/.hidden/x.csv", false),
        ("s3://b/in/", true, "s3://c/in/x.csv", false),
        ("s3://b/", true, "s3://b/in/x.csv", true),
    ] {
        assert_eq!(is_named(entry, is_recursive, Path::new(path)), is, "{entry} {path}");
    }
}
