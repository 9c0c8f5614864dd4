"""A recipe for Conan 2: `conan create packaging/conan`, in this repository. Takes cargo 1.88 and make. Not tested."""

import os

from conan import ConanFile
from conan.tools.files import copy


class Mongoose(ConanFile):
    name = "mongoose5"
    version = "5.0.0"
    license = "MIT OR Apache-2.0"
    description = "Embedded web server with the API of Mongoose 5.0"
    package_type = "library"
    settings = "os", "arch", "build_type"
    options = {"shared": [True, False]}
    default_options = {"shared": True}

    def export_sources(self):
        root = os.path.join(self.recipe_folder, "..", "..")
        copy(self, "*", root, self.export_sources_folder, excludes=("target/*", "build/*", ".git/*"))

    def build(self):
        self.run("make", cwd=self.source_folder)

    def package(self):
        self.run(f"make install PREFIX=/ DESTDIR={self.package_folder}", cwd=self.source_folder)

    def package_info(self):
        self.cpp_info.libs = ["mongoose"] if self.options.shared else [":libmongoose.a"]
        self.cpp_info.system_libs = ["pthread", "m", "dl"]
        self.cpp_info.set_property("cmake_file_name", "mongoose")
