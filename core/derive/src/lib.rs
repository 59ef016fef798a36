//! The derive macro of kubewright-core's Resource trait.
//!
//! It turns the attributes of a struct into constants; everything else is done by `kubewright_core::declare`, so that little code is generated.

mod attributes;

use attributes::Attributes;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, parse_macro_input};

/// Makes a struct an API kind: see `kubewright_core::Described`.
///
/// The struct needs a `metadata: ObjectMeta` field, and `Serialize`, `Deserialize`, `Clone`, `Debug` and `JsonSchema`.
/// `#[resource(...)]` takes `group`, `version`, `kind`, `plural`, `singular`, `short_names("wd")`, `categories("all")`, `namespaced`, `status`,
/// `scale(spec_replicas = ".spec.replicas", status_replicas = ".status.replicas", label_selector = ".status.selector")`,
/// `column(name = "Size", path = ".spec.size", type = "integer")`, `selectable("spec.size")`, `strategy = "MyRules"` and `crate = "path::to::core"`.
#[proc_macro_derive(Resource, attributes(resource))]
pub fn derive_resource(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    check_shape(input)?;
    let attributes = Attributes::parse(input)?;
    let (core, name) = (&attributes.core, &input.ident);
    let (group, version, kind) = (&attributes.group, &attributes.version, &attributes.kind);
    let (plural, list_kind) = (&attributes.plural, format!("{kind}List"));
    let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
    let scope = if attributes.namespaced {
        quote!(#core::k8s_openapi::NamespaceResourceScope)
    } else {
        quote!(#core::k8s_openapi::ClusterResourceScope)
    };
    let declaration = declaration(&attributes);
    Ok(quote! {
        impl #core::k8s_openapi::Resource for #name {
            const API_VERSION: &'static str = #api_version;
            const GROUP: &'static str = #group;
            const KIND: &'static str = #kind;
            const VERSION: &'static str = #version;
            const URL_PATH_SEGMENT: &'static str = #plural;
            type Scope = #scope;
        }
        impl #core::k8s_openapi::ListableResource for #name {
            const LIST_KIND: &'static str = #list_kind;
        }
        impl #core::k8s_openapi::Metadata for #name {
            type Ty = #core::ObjectMeta;
            fn metadata(&self) -> &#core::ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut #core::ObjectMeta {
                &mut self.metadata
            }
        }
        impl #core::Described for #name {
            fn descriptor() -> #core::KindDescriptor {
                #declaration
            }
        }
    })
}

fn check_shape(input: &DeriveInput) -> syn::Result<()> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "only a struct can be an API kind"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "an API kind cannot be generic"));
    }
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "an API kind needs named fields"));
    };
    let has = |name: &str| fields.named.iter().any(|f| f.ident.as_ref().is_some_and(|i| i == name));
    if !has("metadata") {
        let why = "an API kind needs a field `metadata: ObjectMeta`";
        return Err(Error::new_spanned(&input.ident, why));
    }
    Ok(())
}

fn declaration(a: &Attributes) -> TokenStream {
    let core = &a.core;
    let (singular, short_names, categories) = (&a.singular, &a.short_names, &a.categories);
    let (namespaced, status, selectable) = (a.namespaced, a.status, &a.selectable);
    let scale = match &a.scale {
        None => quote!(::core::option::Option::None),
        Some(scale) => {
            let (spec, status) = (&scale.spec_replicas, &scale.status_replicas);
            let selector = match &scale.label_selector {
                Some(path) => quote!(::core::option::Option::Some(#path)),
                None => quote!(::core::option::Option::None),
            };
            quote!(::core::option::Option::Some((#spec, #status, #selector)))
        }
    };
    let columns = a.columns.iter().map(|c| {
        let (name, path, data_type) = (&c.name, &c.path, &c.data_type);
        let (format, description, priority) = (&c.format, &c.description, c.priority);
        quote!(#core::declare::Column {
            name: #name, path: #path, data_type: #data_type, format: #format, description: #description, priority: #priority,
        })
    });
    let strategy = match &a.strategy {
        Some(path) => quote!(#path),
        None => quote!(#core::resource::NoRules),
    };
    quote! {
        #core::declare::descriptor::<Self>(
            &#core::declare::Declaration {
                singular: #singular,
                short_names: &[#(#short_names),*],
                categories: &[#(#categories),*],
                namespaced: #namespaced,
                status: #status,
                scale: #scale,
                columns: &[#(#columns),*],
                selectable_fields: &[#(#selectable),*],
            },
            ::std::sync::Arc::new(#strategy),
        )
    }
}
